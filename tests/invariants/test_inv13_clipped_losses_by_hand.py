"""Invariant 13: clipped losses and clip fractions match figures by hand; an all-masked row gives a finite loss."""

import math

import pytest
import torch

from rl_client.algorithms.ppo_loss import policy_loss, value_loss

# ratio, advantage, -min(ratio * A, clip(ratio, 0.8, 1.2) * A), d loss / d log ratio
POLICY = [
    (1.1, 2.0, -2.2, -2.2),  # inside
    (1.5, 2.0, -2.4, 0.0),  # too far in the good direction: clipped, no gradient
    (0.5, 2.0, -1.0, -1.0),  # too far in the bad direction: not clipped
    (1.5, -2.0, 3.0, 3.0),  # the same with a negative advantage
    (0.5, -2.0, 1.6, 0.0),
    (0.9, -2.0, 1.8, 1.8),
    (1.0, 0.0, 0.0, 0.0),
]

# old value, value, return, half the larger squared error, d loss / d value; clip range 0.2
VALUE = [
    (1.0, 1.1, 2.0, 0.405, -0.9),  # inside: 0.5 * 0.9^2
    (1.0, 1.5, 2.0, 0.32, 0.0),  # clipped to 1.2, whose error 0.8 is larger than 0.5
    (1.0, 1.5, 1.0, 0.125, 0.5),  # clipped to 1.2, whose error 0.2 is smaller than 0.5
    (1.0, 0.2, 0.0, 0.32, 0.0),  # clipped to 0.8, whose error 0.8 is larger than 0.2
    (1.0, 0.2, 3.0, 3.92, -2.8),  # clipped to 0.8, whose error 2.2 is smaller than 2.8
]


def test_policy_loss_and_its_gradient() -> None:
    log_ratio = torch.tensor([[math.log(ratio) for ratio, *_ in POLICY]])
    old = torch.full_like(log_ratio, -1.3)
    logprobs = (old + log_ratio).requires_grad_()
    advantages = torch.tensor([[advantage for _, advantage, *_ in POLICY]])
    mask = torch.ones_like(log_ratio, dtype=torch.bool)
    result = policy_loss(logprobs, old, advantages, mask, clip_range=0.2, normalizer=1)
    assert result.loss.item() == pytest.approx(sum(loss for *_, loss, _ in POLICY), rel=1e-5)
    (gradient,) = torch.autograd.grad(result.loss, logprobs)
    assert gradient.tolist() == [pytest.approx([slope for *_, slope in POLICY], rel=1e-5, abs=1e-6)]
    assert result.clip_fraction.item() == 4  # sum over tokens at normalizer 1: ratios 1.5, 0.5, 1.5, 0.5


@pytest.mark.parametrize("case", POLICY)
def test_each_policy_case_alone(case: tuple[float, float, float, float]) -> None:
    ratio, advantage, loss, _ = case
    result = policy_loss(
        torch.tensor([[math.log(ratio)]]), torch.zeros(1, 1), torch.tensor([[advantage]]), torch.tensor([[True]]),
        clip_range=0.2, normalizer=1,
    )  # fmt: skip
    assert result.loss.item() == pytest.approx(loss, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("case", VALUE)
def test_each_value_case_and_its_gradient(case: tuple[float, float, float, float, float]) -> None:
    old, new, target, loss, slope = case
    values = torch.tensor([[new]], requires_grad=True)
    result = value_loss(
        values, torch.tensor([[old]]), torch.tensor([[target]]), torch.tensor([[True]]), clip_range=0.2, normalizer=1
    )
    (gradient,) = torch.autograd.grad(result.loss, values)
    assert result.loss.item() == pytest.approx(loss, rel=1e-5)
    assert gradient.item() == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_value_loss_of_all_cases_and_clip_fraction() -> None:
    old, new, target = (torch.tensor([[case[i] for case in VALUE]]) for i in range(3))
    mask = torch.ones_like(old, dtype=torch.bool)
    result = value_loss(new, old, target, mask, clip_range=0.2, normalizer=len(VALUE))
    assert result.loss.item() == pytest.approx(sum(case[3] for case in VALUE) / len(VALUE), rel=1e-5)
    assert result.clip_fraction.item() == pytest.approx(2 / 5)


def test_a_masked_token_counts_nowhere() -> None:
    mask = torch.tensor([[True, False]])
    two = torch.tensor([[math.log(1.5), math.log(1.5)]])
    zeros, advantages = torch.zeros(1, 2), torch.full((1, 2), -2.0)
    result = policy_loss(two, zeros, advantages, mask, clip_range=0.2, normalizer=1)
    assert (result.loss.item(), result.clip_fraction.item()) == (pytest.approx(3.0), 1.0)
    result = value_loss(zeros + 0.5, zeros, zeros + 1.0, mask, clip_range=0.2, normalizer=1)
    assert (result.loss.item(), result.clip_fraction.item()) == (pytest.approx(0.32), 1.0)


def test_an_all_masked_batch_gives_a_finite_loss() -> None:
    junk = torch.full((2, 3), math.nan)
    mask = torch.zeros(2, 3, dtype=torch.bool)
    assert policy_loss(junk, junk, junk, mask, clip_range=0.2, normalizer=1).loss.item() == 0.0
    assert value_loss(junk, junk, junk, mask, clip_range=0.2, normalizer=1).loss.item() == 0.0
