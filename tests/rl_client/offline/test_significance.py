import numpy as np
import pytest
from scipy import stats

from rl_client.offline import significance
from rl_client.offline.significance import holm, mean_interval, paired_bootstrap, sign_test


def draw(n, *, seed=0, shift=0.0):
    return np.random.default_rng(seed).exponential(size=n) - 1.0 + shift


def slow_bootstrap(values, resamples, seed):
    rng = np.random.default_rng(seed)
    return np.array([rng.choice(values, len(values)).mean() for _ in range(resamples)])


def test_the_interval_is_scipys_own():
    values = draw(50)
    ours = mean_interval(values, seed=3)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(3))
    assert ours is not None
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=1e-12)
    assert (ours.mean, ours.n) == (pytest.approx(sum(values) / 50), 50)


def test_the_interval_is_that_of_a_slow_loop():
    values = draw(300)
    ours = mean_interval(values, seed=0)
    low, high = np.quantile(slow_bootstrap(values, 2000, seed=1), [0.025, 0.975])
    assert ours is not None
    assert ours.low == pytest.approx(low, abs=0.02)
    assert ours.high == pytest.approx(high, abs=0.02)


def test_many_units_take_percentiles_and_bounded_memory(monkeypatch):
    monkeypatch.setattr(significance, "BCA_MAX_UNITS", 10)
    monkeypatch.setattr(significance, "_BATCH_VALUES", 100)
    values = draw(60)
    ours = mean_interval(values, seed=3, resamples=500)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=500, batch=1, method="percentile", rng=np.random.default_rng(3)
    )
    assert ours is not None
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, -0.15])
def test_the_paired_test_agrees_with_other_tests_of_the_mean(shift):
    differences = np.random.default_rng(0).normal(shift, 1.0, size=200)
    _, p = paired_bootstrap(differences, seed=0)
    assert p == pytest.approx(stats.ttest_1samp(differences, 0.0).pvalue, abs=0.02)
    flips = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=2000, rng=np.random.default_rng(1)
    )
    assert p == pytest.approx(flips.pvalue, abs=0.03)


def test_nothing_is_found_where_nothing_differs():
    interval, p = paired_bootstrap(np.zeros(100), seed=0)
    assert (interval.mean, interval.low, interval.high, p) == (0.0, 0.0, 0.0, 1.0)
    assert sign_test(np.zeros(100), 1e-5).p == 1.0


def test_a_tenth_of_a_standard_deviation_is_found_on_2000_rows():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=2000), rng.normal(0.1, 1.0, size=2000)
    interval, p = paired_bootstrap(b - a, seed=0)
    assert p < 0.05
    assert interval.low is not None
    assert interval.low > 0


def test_false_findings_are_as_rare_as_said():
    found = sum(
        paired_bootstrap(np.random.default_rng(seed).normal(size=40), seed=seed, resamples=499)[1] <= 0.05
        for seed in range(60)
    )
    # 60 tests at 5%: 3 expected, 99.9% of the time at most 10.
    assert found <= 10


def test_few_units():
    assert mean_interval(np.array([]), seed=0) is None
    interval, p = paired_bootstrap(np.array([2.0]), seed=0)
    assert (interval.mean, interval.low, interval.high, p) == (2.0, None, None, 1.0)
    interval, p = paired_bootstrap(np.array([2.0, 2.0]), seed=0, resamples=99)
    assert (interval.low, interval.high, p) == (2.0, 2.0, 0.01)


def test_signs_are_counted_and_ties_left_out():
    test = sign_test(np.array([1.0] * 8 + [-1.0] * 2 + [0.0, 1e-6, -1e-6]), 1e-5)
    assert (test.win, test.tie, test.lose) == (8, 3, 2)
    # 2 * (1 + 10 + 45) / 1024
    assert test.p == pytest.approx(0.109375)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
