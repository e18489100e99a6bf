import math

import numpy as np
import pytest

from reward_service.training.benchmark_figures import (
    accuracy_figures,
    by_subset,
    calibration_figures,
    compare,
    preference_decisions,
    step_decisions,
    step_figures,
    strength_figures,
)
from reward_service.training.benchmark_files import Asked, PreferenceRow, StepsRow
from reward_service.training.benchmark_scores import BenchmarkScores


def scores(*rows: list[float], probability: bool = False) -> BenchmarkScores:
    return BenchmarkScores("m@v", "torch-fp32", probability, [np.array(row) for row in rows])


def asked(subset: str = "all") -> Asked:
    return Asked("place", "p", {}, subset)


def pair(subset: str = "all", chosen: int = 1, rejected: int = 1, strength: float | None = None) -> PreferenceRow:
    return PreferenceRow(asked(subset), ("x",) * chosen, ("y",) * rejected, strength)


PAIRS = [pair("a"), pair("a"), pair("b"), pair("b", 2, 3)]
FOUR = scores([2.0, 1.0], [1.0, 1.0], [0.0, 3.0], [5.0, 4.0, 1.0, 3.5, 2.0])


def test_the_chosen_response_must_beat_every_rejected_one() -> None:
    decisions = preference_decisions(PAIRS, FOUR)
    assert decisions.margins.tolist() == [1.0, 0.0, -3.0, 0.5]
    assert decisions.right.tolist() == [True, False, False, True], "a tie is wrong"
    # Wilson's interval for 2 of 4 by hand: (p + z2/2n -+ z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n), z = 1.95996.
    figures = accuracy_figures(decisions)
    assert (figures["n"], figures["accuracy"]) == (4, 0.5)
    assert figures["low"] == pytest.approx(0.15003, abs=1e-4)
    assert figures["high"] == pytest.approx(0.84997, abs=1e-4)
    assert {name: (one["n"], one["accuracy"]) for name, one in by_subset(decisions).items()} == {
        "a": (2, 0.5),
        "b": (2, 0.5),
    }


def test_preferences_are_calibrated_by_the_side_that_is_preferred() -> None:
    # Margins of +-log 3 claim 3/4; three of four are right, so that the claim is true.
    lead = math.log(3)
    rows = [[lead, 0.0], [lead, 0.0], [lead, 0.0], [0.0, lead]]
    figures = calibration_figures(preference_decisions([pair()] * 4, scores(*rows)))
    assert figures is not None
    assert figures["ece"] == pytest.approx(0.0)
    assert figures["brier"] == pytest.approx((3 * 0.25**2 + 0.75**2) / 4)
    assert figures["bins"] == [{"n": 4, "probability": pytest.approx(0.75), "right": 0.75}]
    of_classifier = preference_decisions([pair()] * 4, scores(*rows, probability=True))
    assert calibration_figures(of_classifier) is None


SOLUTIONS = [
    StepsRow(asked("a"), ("s",) * 3, (True, True, False)),
    StepsRow(asked("a"), ("s",) * 2, (True, True)),
    StepsRow(asked("b"), ("s",) * 3, (True, False, None)),
    StepsRow(asked("b"), ("s",) * 2, (None, False)),
]
PROBABILITIES = scores([0.9, 0.6, 0.2], [0.9, 0.4], [0.8, 0.7, 0.1], [0.5, 0.3], probability=True)


def test_steps_with_a_label_are_judged() -> None:
    decisions = step_decisions(SOLUTIONS, PROBABILITIES)
    assert decisions.truth.tolist() == [True, True, False, True, True, True, False, False]
    assert decisions.right.tolist() == [True, True, True, True, False, True, False, True]
    assert decisions.subsets == ["a"] * 5 + ["b"] * 3
    figures = step_figures(SOLUTIONS, PROBABILITIES, decisions)
    # Wrong steps .2 .7 .3 against right ones .9 .6 .9 .4 .8: of 15 pairs 13 are in order (.7 beats .6 and .4).
    assert figures["auc"] == pytest.approx(13 / 15)
    # Said wrong: .2 .4 .3, of which two are; three are wrong: F1 = 2*2 / (3 + 3).
    assert figures["f1_wrong"] == pytest.approx(2 / 3)
    # Observed 6/8; expected 5/8*5/8 + 3/8*3/8 = 34/64; kappa = (48 - 34) / (64 - 34).
    assert figures["kappa"] == pytest.approx(14 / 30)
    # First wrong step: found in the first; claimed in the second, which has none; missed in the third. The last has a
    # step without a label before it.
    assert (figures["first_error"], figures["n_solutions"]) == (pytest.approx(1 / 3), 3)


def test_scalars_above_zero_say_right() -> None:
    decisions = step_decisions(SOLUTIONS[:1], scores([1.0, -1.0, -1.0]))
    assert decisions.right.tolist() == [True, False, True]
    figures = calibration_figures(decisions)
    assert figures is not None
    assert sum(one["n"] for one in figures["bins"]) == 3


def test_all_right_steps_are_calibrated_as_steps() -> None:
    decisions = step_decisions([SOLUTIONS[1]], scores([0.9, 0.1], probability=True))
    figures = calibration_figures(decisions)
    assert figures is not None
    assert figures["ece"] == pytest.approx((0.1 + 0.9) / 2), "P(right) of .1 is far off, and no .9"


def test_models_are_compared_case_by_case() -> None:
    first = preference_decisions(PAIRS, FOUR)
    itself = compare(first, first)
    assert itself == {
        "n": 4,
        "same": 1.0,
        "kappa": 1.0,
        "spearman": pytest.approx(1.0),
        "kendall": pytest.approx(1.0),
        "largest_difference": 0.0,
    }
    opposite = preference_decisions(PAIRS, scores([1.0, 2.0], [1.5, 1.0], [3.0, 0.0], [1.0, 1.0, 5.0, 1.0, 1.0]))
    other = compare(first, opposite)
    assert other["same"] == 0.0
    assert other["kappa"] == pytest.approx(-1.0)
    # Margins 1, 0, -3, .5 and -1, .5, 3, -4: ranks 4 2 1 3 and 2 3 4 1; rho = 1 - 6 (4+1+9+4) / (4*15) = -.8.
    assert other["spearman"] == pytest.approx(-0.8)
    assert other["largest_difference"] == 6.0
    right = preference_decisions(PAIRS[:2], scores([2.0, 1.0], [2.0, 1.0]))
    assert compare(right, right)["kappa"] is None, "chance explains it"
    assert compare(right, right)["spearman"] is None


def test_clear_preferences_have_larger_margins() -> None:
    rows = [pair(strength=1.0), pair(strength=3.0), pair(strength=2.0), pair()]
    decisions = preference_decisions(rows, scores([1.0, 0], [3.0, 0], [2.0, 0], [9.0, 0]))
    assert strength_figures(rows, decisions) == {"n": 3, "spearman": pytest.approx(1.0), "kendall": pytest.approx(1.0)}
    assert strength_figures([pair()], preference_decisions([pair()], scores([1.0, 0]))) is None
