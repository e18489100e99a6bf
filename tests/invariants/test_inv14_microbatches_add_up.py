"""Invariant 14, for the losses: cutting a mini-batch into micro-batches, or padding it, changes no gradient."""

import pytest
import torch
from torch import Tensor

from rl_client.algorithms.ppo_loss import policy_loss, value_loss

ROWS, WIDTH = 6, 5


def batch() -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(1)
    names = ("features", "old_logprobs", "advantages", "old_values", "returns")
    tensors = {name: torch.randn(ROWS, WIDTH, generator=generator) for name in names}
    lengths = torch.tensor([5, 1, 3, 0, 2, 4])
    return tensors, torch.arange(WIDTH) < lengths.unsqueeze(1)


def figures(sizes: tuple[int, ...]) -> tuple[list[float], float]:
    """Summed losses and fractions, and the gradient of one weight, over micro-batches of these numbers of rows."""
    tensors, mask = batch()
    weight = torch.tensor(0.7, requires_grad=True)
    tokens = int(mask.sum())
    sums = torch.zeros(5)
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        start += size
        predicted = weight * tensors["features"][rows]
        policy = policy_loss(
            predicted, tensors["old_logprobs"][rows], tensors["advantages"][rows], mask[rows],
            clip_range=0.2, normalizer=tokens,
        )  # fmt: skip
        value = value_loss(
            predicted, tensors["old_values"][rows], tensors["returns"][rows], mask[rows],
            clip_range=0.2, normalizer=tokens,
        )  # fmt: skip
        (policy.loss + value.loss).backward()
        parts = (policy.loss, policy.clip_fraction, policy.approx_kl, value.loss, value.clip_fraction)
        sums = sums + torch.stack([part.detach() for part in parts])
    assert weight.grad is not None
    return sums.tolist(), weight.grad.item()


@pytest.mark.parametrize("sizes", [(1,) * 6, (2, 2, 2), (4, 2), (1, 5)])
def test_microbatches_add_up_to_the_minibatch(sizes: tuple[int, ...]) -> None:
    whole, gradient = figures((ROWS,))
    parts, parts_gradient = figures(sizes)
    assert gradient != 0
    assert parts == pytest.approx(whole, rel=1e-5)
    assert parts_gradient == pytest.approx(gradient, rel=1e-5)
