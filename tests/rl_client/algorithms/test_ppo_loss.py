import math

import pytest
import torch

from rl_client.algorithms.ppo_loss import policy_loss, value_loss


def test_metrics_of_the_policy_loss_by_hand() -> None:
    result = policy_loss(
        torch.tensor([[math.log(1.5), math.log(0.5), 0.0, 40.0]]),
        torch.tensor([[0.0, 0.0, 0.0, 0.0]]),
        torch.tensor([[1.0, 1.0, 1.0, 1.0]]),
        torch.tensor([[True, True, True, False]]),
        clip_range=0.2,
        normalizer=3,
    )
    assert result.clip_fraction.item() == pytest.approx(2 / 3)
    assert result.ratio_max.item() == pytest.approx(1.5)
    assert result.ratio_mean.item() == pytest.approx((1.5 + 0.5 + 1.0) / 3)
    # k3 of KL(old || new) with r = new / old: (r - 1) - log r.
    k3 = (0.5 - math.log(1.5)) + (-0.5 - math.log(0.5))
    assert result.approx_kl.item() == pytest.approx(k3 / 3, rel=1e-5)


def test_diagnostics_carry_no_gradient() -> None:
    logprobs = torch.zeros(1, 2, requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    result = policy_loss(logprobs, torch.zeros(1, 2), torch.ones(1, 2), mask, clip_range=0.2, normalizer=2)
    assert result.loss.requires_grad
    for diagnostic in (result.clip_fraction, result.approx_kl, result.ratio_mean, result.ratio_max):
        assert not diagnostic.requires_grad
    values = torch.zeros(1, 2, requires_grad=True)
    errors = value_loss(values, torch.zeros(1, 2), torch.ones(1, 2), mask, clip_range=0.2, normalizer=2)
    assert errors.loss.requires_grad
    assert not errors.clip_fraction.requires_grad


def test_the_normalizer_divides() -> None:
    args = (torch.tensor([[0.1]]), torch.tensor([[0.0]]), torch.tensor([[2.0]]), torch.tensor([[True]]))
    one = policy_loss(*args, clip_range=0.2, normalizer=1).loss
    assert policy_loss(*args, clip_range=0.2, normalizer=8).loss.item() == pytest.approx(one.item() / 8)
    one = value_loss(*args, clip_range=0.2, normalizer=1).loss
    assert value_loss(*args, clip_range=0.2, normalizer=8).loss.item() == pytest.approx(one.item() / 8)


@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_an_all_masked_row_gives_a_finite_loss_and_gradient(junk: float) -> None:
    logprobs = torch.tensor([[0.1, 0.2], [junk, junk]], requires_grad=True)
    mask = torch.tensor([[True, True], [False, False]])
    others = torch.full((2, 2), junk)
    others[0] = 0.5
    for result in (
        policy_loss(logprobs, others, others, mask, clip_range=0.2, normalizer=2),
        value_loss(logprobs, others, others, mask, clip_range=0.2, normalizer=2),
    ):
        assert result.loss.isfinite()
        (gradient,) = torch.autograd.grad(result.loss, logprobs, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient[1].tolist() == [0.0, 0.0]


def test_no_real_token_at_all() -> None:
    zeros = torch.zeros(2, 3)
    result = policy_loss(zeros, zeros, zeros, zeros.bool(), clip_range=0.2, normalizer=1)
    assert (result.loss.item(), result.clip_fraction.item(), result.approx_kl.item(), result.ratio_max.item()) == (
        0.0,
    ) * 4
