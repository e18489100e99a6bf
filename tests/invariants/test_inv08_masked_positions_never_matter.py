"""Invariant 8: what stands at masked positions, NaN and infinity included, changes no value and no gradient."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rl_client.algorithms.advantages import compute_gae
from rl_client.algorithms.kl import explained_variance
from rl_client.algorithms.masking import masked_mean, masked_statistics, masked_var, masked_whiten
from rl_client.algorithms.ppo_loss import policy_loss, value_loss
from rl_client.algorithms.token_rewards import kl_penalised_rewards

MASK = torch.tensor([[True, True, False, False], [False, True, True, False], [False] * 4])

Function = Callable[[Tensor, Tensor, Tensor], list[Tensor]]
"""Of three [B, T] tensors that all get junk at masked positions."""

FUNCTIONS: dict[str, Function] = {
    "gae": lambda a, b, c: list(compute_gae(a, b, MASK, gamma=0.9, gae_lambda=0.8)),
    "kl_penalised_rewards": lambda a, b, c: [kl_penalised_rewards(a, b, c, MASK, 0.3)],
    "masked_mean": lambda a, b, c: [masked_mean(a, MASK), masked_mean(b, MASK, dim=1)],
    "masked_var": lambda a, b, c: [masked_var(a, MASK)],
    "masked_whiten": lambda a, b, c: [masked_whiten(a, MASK), masked_whiten(b, MASK, shift_mean=False)],
    "masked_statistics": lambda a, b, c: [torch.tensor(masked_statistics(a, MASK).var)],
    "explained_variance": lambda a, b, c: [explained_variance(a, b, MASK)],
    "policy_loss": lambda a, b, c: [
        *vars_of(policy_loss(a, b, c, MASK, clip_range=0.2, normalizer=4)),
    ],
    "value_loss": lambda a, b, c: [*vars_of(value_loss(a, b, c, MASK, clip_range=0.2, normalizer=4))],
}


def vars_of(result: object) -> list[Tensor]:
    return [getattr(result, name) for name in type(result).__slots__]  # type: ignore[attr-defined]


def run(function: Function, junk: float) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(3)
    inputs = []
    for _ in range(3):
        values = torch.randn(MASK.shape, generator=generator)
        inputs.append(torch.where(MASK, values, junk).requires_grad_())
    outputs = function(*inputs)
    total = sum((x.sum() for x in outputs if x.requires_grad), torch.zeros((), requires_grad=True) * 0)
    gradients = torch.autograd.grad(total, inputs, allow_unused=True)
    return outputs, [g if g is not None else torch.zeros(MASK.shape) for g in gradients]


@pytest.mark.parametrize("junk", [1e9, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_junk_at_masked_positions_changes_nothing(name: str, junk: float) -> None:
    expected, expected_gradients = run(FUNCTIONS[name], 0.0)
    got, gradients = run(FUNCTIONS[name], junk)
    for one, other in zip(expected, got, strict=True):
        assert one.isfinite().all()
        assert torch.equal(one, other)
    for one, other in zip(expected_gradients, gradients, strict=True):
        assert torch.equal(one, other)
        assert not other[~MASK].any()
