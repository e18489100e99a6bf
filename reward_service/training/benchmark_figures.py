"""Figures of a benchmark: accuracy by subset, calibration, agreement between scores and with people. Pure.

Source: SciPy and scikit-learn for the statistics; Lambert et al., arXiv 2403.13787 (RewardBench) for the accuracy of a
preference: the chosen response must score higher than every rejected one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import binomtest, kendalltau, spearmanr
from sklearn.metrics import brier_score_loss, cohen_kappa_score, f1_score, roc_auc_score

from reward_service.training.benchmark_files import PreferenceRow, StepsRow
from reward_service.training.benchmark_scores import BenchmarkScores
from reward_service.training.figures import calibration_bins, calibration_error

THRESHOLD = 0.5
"""A step is right from this P(ok) on."""

CONFIDENCE = 0.95
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a model decides in N cases, beside the truth.

    Attributes:
        of_pairs: Whether the cases are preferences, and not steps.
        right: [N] bool, whether it is right.
        margins: [N] float64, how clearly: the lead of the better of two, or a step's score.
        subsets: [N] names.
        truth: [N] bool, what is right of a step; all True for preferences, whose first side is the chosen one.
        probability: [N] float64 in [0, 1], of `truth` being True; None where the scores are no probabilities.
    """

    of_pairs: bool
    right: NDArray[np.bool_]
    margins: NDArray[np.float64]
    subsets: list[str]
    truth: NDArray[np.bool_]
    probability: NDArray[np.float64] | None


def preference_decisions(rows: Sequence[PreferenceRow], scores: BenchmarkScores) -> Decisions:
    """The margin of a row is the least of its chosen responses' scores less the most of its rejected ones'."""
    margins = np.array(
        [
            own[: len(row.chosen)].min() - own[len(row.chosen) :].max()
            for row, own in zip(rows, scores.rows, strict=True)
        ]
    )
    # Bradley and Terry's model, by which pairwise models are trained; differences of probabilities are none.
    probability = None if scores.is_probability else expit(margins)
    subsets = [row.asked.subset for row in rows]
    return Decisions(True, margins > 0, margins, subsets, np.ones(len(rows), dtype=bool), probability)


def step_decisions(rows: Sequence[StepsRow], scores: BenchmarkScores) -> Decisions:
    """One for each step that has a label. A scalar above 0 means right."""
    truth = np.array([label for row in rows for label in row.labels if label is not None], dtype=bool)
    marked = [np.array([label is not None for label in row.labels]) for row in rows]
    values = np.concatenate([own[mask] for own, mask in zip(scores.rows, marked, strict=True)])
    says = values >= THRESHOLD if scores.is_probability else values > 0
    subsets = [row.asked.subset for row, mask in zip(rows, marked, strict=True) for _ in range(int(mask.sum()))]
    probability = values if scores.is_probability else expit(values)
    return Decisions(False, says == truth, values, subsets, truth, probability)


def accuracy_figures(decisions: Decisions) -> Figures:
    """`n`, `accuracy`, and the ends of its 95 % interval by Wilson; None where there is nothing to judge."""
    count = len(decisions.right)
    if not count:
        return {"n": 0, "accuracy": None, "low": None, "high": None}
    interval = binomtest(int(decisions.right.sum()), count).proportion_ci(CONFIDENCE, "wilson")
    accuracy = float(decisions.right.mean())
    return {"n": count, "accuracy": accuracy, "low": float(interval.low), "high": float(interval.high)}


def by_subset(decisions: Decisions) -> dict[str, Figures]:
    """`accuracy_figures` of each subset, in order of their names."""
    names = np.array(decisions.subsets)
    return {str(name): accuracy_figures(_some(decisions, names == name)) for name in np.unique(names)}


def _some(decisions: Decisions, inside: NDArray[np.bool_]) -> Decisions:
    names = [name for name, kept in zip(decisions.subsets, inside, strict=True) if kept]
    probability = None if decisions.probability is None else decisions.probability[inside]
    return Decisions(
        decisions.of_pairs,
        decisions.right[inside],
        decisions.margins[inside],
        names,
        decisions.truth[inside],
        probability,
    )


def calibration_figures(decisions: Decisions) -> Figures | None:
    """`ece`, `brier` and the bins of the reliability diagram; None where the scores are no probabilities.

    For preferences the probability is that of the side which the model prefers, and the truth whether it is the chosen
    one: with all of them on one side a constant would be calibrated. Ties count as wrong.
    """
    if decisions.probability is None or not len(decisions.right):
        return None
    if decisions.of_pairs:
        probability, truth = np.maximum(decisions.probability, 1 - decisions.probability), decisions.right
    else:
        probability, truth = decisions.probability, decisions.truth
    bins = calibration_bins(probability, truth)
    return {
        "ece": calibration_error(probability, truth),
        "brier": float(brier_score_loss(truth, probability)),
        "bins": [{"n": one.count, "probability": one.probability, "right": one.ok_share} for one in bins],
    }


def step_figures(rows: Sequence[StepsRow], scores: BenchmarkScores, decisions: Decisions) -> Figures:
    """`auc`, `f1_wrong`, `kappa` with the people who labelled, and `first_error`.

    `first_error` is the share of solutions, of those with a label for each step up to the first wrong one, whose first
    wrong step the model finds, or says that there is none. Source: Zheng et al., arXiv 2412.06559 (ProcessBench).
    """
    truth, says = decisions.truth, decisions.right == decisions.truth
    both = 0 < truth.sum() < len(truth)
    found = []
    for row, own in zip(rows, scores.rows, strict=True):
        wrong = row.labels.index(False) if False in row.labels else len(row.labels)
        if None in row.labels[:wrong]:
            continue
        says_right = own >= THRESHOLD if scores.is_probability else own > 0
        first = int(np.argmin(says_right)) if not says_right.all() else len(row.labels)
        found.append(first == wrong)
    return {
        "auc": float(roc_auc_score(truth, decisions.margins)) if both else None,
        "f1_wrong": float(f1_score(~truth, ~says, zero_division=0.0)) if len(truth) else None,
        "kappa": _kappa(truth, says),
        "first_error": float(np.mean(found)) if found else None,
        "n_solutions": len(found),
    }


def strength_figures(rows: Sequence[PreferenceRow], decisions: Decisions) -> Figures | None:
    """Rank correlations of the model's margins with how clearly people preferred; None where they did not say."""
    pairs = [(row.strength, margin) for row, margin in zip(rows, decisions.margins, strict=True)]
    told = [(strength, margin) for strength, margin in pairs if strength is not None]
    return {"n": len(told), **_rank([a for a, _ in told], [b for _, b in told])} if len(told) > 1 else None


def compare(first: Decisions, second: Decisions) -> Figures:
    """How far two models, or two runtimes of one, agree on the same cases.

    Returns:
        `same`: share of cases decided alike. `kappa`: Cohen's, of being right, which chance agreement does not raise.
        `spearman` and `kendall` of their margins. `largest_difference` of a margin.
    """
    return {
        "n": len(first.right),
        "same": float((first.right == second.right).mean()),
        "kappa": _kappa(first.right, second.right),
        **_rank(first.margins, second.margins),
        "largest_difference": float(np.abs(first.margins - second.margins).max()),
    }


def _kappa(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float | None:
    """Cohen's kappa; None where both say the same of everything, so that chance alone explains it."""
    if not len(first) or (first.all() and second.all()) or not (first.any() or second.any()):
        return None
    return float(cohen_kappa_score(first, second))


def _rank(first: Any, second: Any) -> Mapping[str, float | None]:
    """Spearman's and Kendall's; None where one side does not vary."""
    if len(first) < 2 or len(set(map(float, first))) < 2 or len(set(map(float, second))) < 2:
        return {"spearman": None, "kendall": None}
    return {
        "spearman": float(spearmanr(first, second).statistic),
        "kendall": float(kendalltau(first, second).statistic),
    }
