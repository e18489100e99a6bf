"""Is a mean, or a difference of means, more than chance? Pure functions on arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9999
BCA_MAX_UNITS = 10_000
"""Beyond it the percentile method: BCa leaves out each unit once, and corrects what no longer shows."""
_BATCH_VALUES = 2_000_000
"""Values that are resampled at a time, so that memory stays bounded."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and where it may lie.

    Attributes:
        mean: Of the units.
        low: Lower end of the confidence interval; None for a single unit.
        high: Upper end.
        n: How many units there are.
    """

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class SignTest:
    """Wins and losses against an even coin.

    Attributes:
        win: Differences above the margin.
        tie: Differences within it; the test leaves them out.
        lose: Differences below it.
        p: Two-sided exact probability of a split so uneven; 1 without wins and losses.
    """

    win: int
    tie: int
    lose: int
    p: float


def mean_interval(values: Values, *, seed: int, resamples: int = RESAMPLES) -> Interval | None:
    """Bootstrap confidence interval of a mean over independent units.

    Args:
        values: [n] finite values, one a unit.
        seed: Of the resampling.
        resamples: How many.

    Returns:
        The BCa interval (percentile beyond `BCA_MAX_UNITS` units), or None without a unit.

    Source: Efron, Better Bootstrap Confidence Intervals, 1987, as `scipy.stats.bootstrap` computes it.
    """
    return paired_bootstrap(values, seed=seed, resamples=resamples)[0] if len(values) else None


def paired_bootstrap(differences: Values, *, seed: int, resamples: int = RESAMPLES) -> tuple[Interval, float]:
    """Whether paired differences have a mean other than 0.

    Args:
        differences: [n] finite differences, one a unit; n >= 1.
        seed: Of the resampling.
        resamples: How many.

    Returns:
        interval: Of the mean difference.
        p: Two-sided: how often the mean of resampled differences, moved so that their mean is 0, is at least as far
            from 0 as the one found. Never below 1 / (resamples + 1); 1 for a single unit.

    Source: the shift method, Efron and Tibshirani, An Introduction to the Bootstrap, section 16.4, two-sided.
    """
    n = len(differences)
    mean = float(differences.mean())
    if n == 1:
        return Interval(mean, None, None, 1), 1.0
    if np.ptp(differences) == 0:
        # Every resample is the same: there is no spread to estimate, and BCa is not defined.
        return Interval(mean, mean, mean, n), 1.0 if mean == 0 else 1.0 / (resamples + 1)
    found = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, _BATCH_VALUES // n),
        confidence_level=CONFIDENCE,
        method="BCa" if n <= BCA_MAX_UNITS else "percentile",
        rng=np.random.default_rng(seed),
    )
    # A tiny slack: a mean of the same values in another order differs in its last digit.
    slack = 1e-12 * float(np.abs(differences).max())
    as_far = np.abs(found.bootstrap_distribution - mean) >= abs(mean) - slack
    p = (1 + int(as_far.sum())) / (resamples + 1)
    interval = found.confidence_interval
    return Interval(mean, float(interval.low), float(interval.high), n), p


def sign_test(differences: Values, margin: float) -> SignTest:
    """Count wins and losses, and how likely an even coin splits them so unevenly.

    Args:
        differences: [n] finite differences.
        margin: Differences up to it are ties; >= 0.
    """
    win = int((differences > margin).sum())
    lose = int((differences < -margin).sum())
    p = float(stats.binomtest(win, win + lose).pvalue) if win + lose else 1.0
    return SignTest(win, len(differences) - win - lose, lose, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for being several: the chance of even one false finding stays at the level.

    Args:
        p_values: Of all tests that are looked at together.

    Returns:
        Corrected ones in the same order; a test is found at level a where its value is at most a.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected = [0.0] * len(p_values)
    least = 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = least
    return corrected
