import pytest

from reward_service.core.wait_correction import MARGIN, MAX_FACTOR, WaitCorrection


def factor_after(*durations_s: float) -> float:
    """What is made of an expectation of 1 s after requests that took so long instead."""
    correction = WaitCorrection()
    for took_s in durations_s:
        correction.learn(1.0, took_s)
    return correction.factor / MARGIN


def test_it_follows_what_takes_longer_quickly_and_forgets_slowly() -> None:
    assert factor_after() == 1.0
    assert factor_after(2.0) == pytest.approx(1.5)
    assert factor_after(2.0, 1.0) == pytest.approx(1.5 - 0.5 * 0.03)
    assert factor_after(*[2.0] * 50) == pytest.approx(2.0, abs=0.01)
    assert factor_after(*[2.0] * 50, *[1.0] * 300) == pytest.approx(1.0, abs=0.01)


def test_it_has_bounds() -> None:
    assert factor_after(*[0.1] * 50) == 1.0
    assert factor_after(*[1000.0] * 100) == pytest.approx(MAX_FACTOR, abs=0.01)


def test_short_waits_teach_nothing() -> None:
    correction = WaitCorrection()
    correction.learn(0.001, 10.0)
    assert correction.factor == MARGIN
