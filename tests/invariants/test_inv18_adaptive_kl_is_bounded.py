"""Invariant 18, for the control of the coefficient: whatever the KL does, a step changes it by a bounded share."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_client.algorithms.kl import adapted_kl_coefficient
from rl_client.training.kl_control import KlControl
from rl_client.training.settings_kl import KlSettings

KL = st.floats(min_value=-1e6, max_value=1e6)


@given(KL, st.floats(min_value=1e-3, max_value=1e3), st.floats(min_value=1e-4, max_value=10.0))
def test_one_step_moves_it_by_a_fifth_of_the_gain_at_most(kl: float, target: float, coefficient: float) -> None:
    moved = adapted_kl_coefficient(coefficient, kl, target=target, gain=0.1)
    assert 0.98 * coefficient * (1 - 1e-9) <= moved <= 1.02 * coefficient * (1 + 1e-9)
    assert (moved > coefficient) == (kl > target) or math.isclose(moved, coefficient, rel_tol=1e-9)


def test_a_hundred_steps_of_any_kl_stay_within_the_product_of_the_bounds() -> None:
    up, down = (KlControl(KlSettings(target=6.0), 0.2) for _ in range(2))
    for _ in range(100):
        up.follow({"kl": 1e9})
        down.follow({"kl": -1e9})
    assert up.coefficient == pytest.approx(0.2 * 1.02**100)
    assert down.coefficient == pytest.approx(0.2 * 0.98**100)
