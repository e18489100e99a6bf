"""Invariant 5, for the algorithms: left or right padding, its length and batch neighbours change nothing."""

import random

import pytest
import torch
from torch import Tensor

from rl_client.algorithms.advantages import compute_gae
from rl_client.algorithms.kl import explained_variance
from rl_client.algorithms.masking import masked_mean, masked_var, masked_whiten
from rl_client.algorithms.ppo_loss import policy_loss, value_loss
from rl_client.algorithms.token_rewards import kl_penalised_rewards

LENGTHS = (5, 1, 0, 3)
WIDTH = 5
NAMES = ("rewards", "logprobs", "old_logprobs", "values", "old_values")


def tight_batch(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(len(LENGTHS), WIDTH, generator=generator) for name in NAMES}


def repad(batch: dict[str, Tensor], left: int, right: int, junk: float) -> tuple[dict[str, Tensor], Tensor]:
    """The same responses behind `left` and before at least `right` pads, which hold `junk`."""
    shape = (len(LENGTHS), left + WIDTH + right)
    mask = torch.zeros(shape, dtype=torch.bool)
    padded = {name: torch.full(shape, junk) for name in NAMES}
    for row, length in enumerate(LENGTHS):
        mask[row, left : left + length] = True
        for name in NAMES:
            padded[name][row, left : left + length] = batch[name][row, :length]
    return padded, mask


def figures(batch: dict[str, Tensor], mask: Tensor) -> list[float]:
    """Everything that the algorithms compute of the real tokens, in order."""
    rewards = kl_penalised_rewards(batch["rewards"], batch["logprobs"], batch["old_logprobs"], mask, 0.1)
    advantages, returns = compute_gae(rewards, batch["old_values"], mask, gamma=0.9, gae_lambda=0.8)
    whitened = masked_whiten(advantages, mask)
    policy = policy_loss(batch["logprobs"], batch["old_logprobs"], whitened, mask, clip_range=0.2, normalizer=9)
    value = value_loss(batch["values"], batch["old_values"], returns, mask, clip_range=0.2, normalizer=9)
    scalars = [
        policy.loss, policy.clip_fraction, policy.approx_kl, policy.ratio_max, value.loss, value.clip_fraction,
        masked_mean(batch["values"], mask), masked_var(batch["values"], mask),
        explained_variance(batch["values"], returns, mask),
    ]  # fmt: skip
    dense = [rewards, advantages, returns, whitened]
    for tensor in dense:
        assert torch.equal(tensor[~mask], torch.zeros_like(tensor[~mask])), "pads must be exactly 0"
    return [x.item() for x in scalars] + [x for tensor in dense for x in tensor[mask].tolist()]


@pytest.mark.parametrize("junk", [0.0, 1e6, float("nan")])
@pytest.mark.parametrize(("left", "right"), [(0, 3), (4, 0), (2, 50)])
def test_padding_changes_nothing(left: int, right: int, junk: float) -> None:
    batch = tight_batch(seed=0)
    expected = figures(*repad(batch, 0, 0, 0.0))
    assert figures(*repad(batch, left, right, junk)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_neighbours_change_no_row() -> None:
    batch, mask = repad(tight_batch(seed=1), 0, 0, 0.0)
    order = list(range(len(LENGTHS)))
    random.Random(0).shuffle(order)
    advantages, returns = compute_gae(batch["rewards"], batch["values"], mask, gamma=0.9, gae_lambda=0.8)
    for row in order:
        alone = compute_gae(
            batch["rewards"][row : row + 1],
            batch["values"][row : row + 1],
            mask[row : row + 1],
            gamma=0.9,
            gae_lambda=0.8,
        )
        assert torch.equal(alone[0][0], advantages[row])
        assert torch.equal(alone[1][0], returns[row])
