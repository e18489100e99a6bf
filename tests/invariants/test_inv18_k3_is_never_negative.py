"""Invariant 18, for the estimators: k3 >= 0, and 0 only where policy and reference agree."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from rl_client.algorithms.kl import kl_k3

LOGPROBS = st.floats(min_value=-60.0, max_value=0.0, width=32)


@given(LOGPROBS, LOGPROBS)
def test_any_pair_of_logprobs(policy: float, reference: float) -> None:
    assert kl_k3(torch.tensor(policy), torch.tensor(reference)).item() >= 0.0


def test_tiny_differences_do_not_round_below_zero() -> None:
    differences = torch.cat([torch.logspace(-12, 0, 20_001), -torch.logspace(-12, 0, 20_001)])
    divergence = kl_k3(torch.zeros_like(differences), differences)
    assert (divergence >= 0).all()


def test_zero_where_they_agree_and_growing_away_from_it() -> None:
    differences = torch.tensor([-2.0, -1.0, -0.1, 0.0, 0.1, 1.0, 2.0])
    divergence = kl_k3(torch.full_like(differences, -1.0), -1.0 + differences).tolist()
    assert divergence[3] == 0.0
    assert divergence[0] > divergence[1] > divergence[2] > 0.0
    assert divergence[6] > divergence[5] > divergence[4] > 0.0
