import math

import pytest
import torch

from rl_client.algorithms.kl import (
    adapted_kl_coefficient,
    entropy_from_logits,
    exact_kl,
    explained_variance,
    kl_k1,
    kl_k2,
    kl_k3,
)


def test_estimators_by_hand() -> None:
    logprobs, reference = torch.tensor([[math.log(0.5)]]), torch.tensor([[math.log(0.25)]])
    assert kl_k1(logprobs, reference).item() == pytest.approx(math.log(2))
    assert kl_k2(logprobs, reference).item() == pytest.approx(math.log(2) ** 2 / 2)
    assert kl_k3(logprobs, reference).item() == pytest.approx(0.5 - 1 + math.log(2))


def test_k1_and_k3_average_to_the_true_divergence() -> None:
    policy, reference = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    truth = sum(p * math.log(p / q) for p, q in zip(policy.tolist(), reference.tolist(), strict=True))
    for estimator in (kl_k1, kl_k3):
        expected = (policy * estimator(policy.log(), reference.log())).sum().item()
        assert expected == pytest.approx(truth, rel=1e-5)


def test_entropy_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [math.log(3.0), 0.0, -math.inf, -math.inf]]])
    expected = [math.log(4), -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))]
    assert entropy_from_logits(logits).tolist() == [pytest.approx(expected)]


def test_entropy_under_a_temperature() -> None:
    # Logits log 9 and 0 at temperature 2 are log 3 and 0.
    logits = torch.tensor([[[math.log(9.0), 0.0]]])
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert entropy_from_logits(logits, temperature=2.0).item() == pytest.approx(expected)


def test_entropy_of_half_precision_logits_is_computed_in_float32() -> None:
    entropy = entropy_from_logits(torch.zeros(1, 1, 1000, dtype=torch.bfloat16))
    assert entropy.dtype is torch.float32
    assert entropy.item() == pytest.approx(math.log(1000), rel=1e-5)


def test_explained_variance_by_hand() -> None:
    returns = torch.tensor([[1.0, 3.0, math.nan]])
    mask = torch.tensor([[True, True, False]])
    # Residuals -0.5 and 0.5: variance 0.25 of 1.
    assert explained_variance(torch.tensor([[1.5, 2.5, 0.0]]), returns, mask).item() == pytest.approx(0.75)
    assert explained_variance(returns, returns, mask).item() == 1.0
    assert explained_variance(torch.full((1, 3), 9.0), returns, mask).item() == pytest.approx(0.0)
    # Residuals -2 and 2: worse than a constant.
    assert explained_variance(torch.tensor([[3.0, 1.0, 0.0]]), returns, mask).item() == pytest.approx(-3.0)


def test_returns_that_do_not_vary_leave_nothing_to_explain() -> None:
    returns = torch.full((2, 3), 0.1)
    values = torch.arange(6.0).reshape(2, 3)
    assert explained_variance(values, returns, torch.ones(2, 3, dtype=torch.bool)).item() == 0.0
    assert explained_variance(values, returns, torch.zeros(2, 3, dtype=torch.bool)).item() == 0.0


@pytest.mark.parametrize(
    ("kl", "expected"), [(5.0, 0.2), (5.5, 0.202), (6.0, 0.204), (100.0, 0.204), (4.5, 0.198), (-7.0, 0.196)]
)
def test_the_coefficient_moves_by_a_bounded_share_by_hand(kl: float, expected: float) -> None:
    """Target 5, gain 0.1: by a tenth of the relative error, which counts as 0.2 at most."""
    assert adapted_kl_coefficient(0.2, kl, target=5.0, gain=0.1) == pytest.approx(expected)


def test_exact_kl_by_hand() -> None:
    policy, reference = [0.7, 0.2, 0.1], [0.3, 0.3, 0.4]
    truth = sum(p * math.log(p / q) for p, q in zip(policy, reference, strict=True))
    logits, ref_logits = torch.tensor([policy, reference]).log() + 3.0, torch.tensor([reference, reference]).log()
    assert exact_kl(logits, ref_logits, temperature=1.0).tolist() == pytest.approx([truth, 0.0], abs=1e-6)
    # Logits twice as large at temperature 2 are the same distributions.
    assert exact_kl(2 * logits, 2 * ref_logits, temperature=2.0).tolist() == pytest.approx([truth, 0.0], abs=1e-6)
