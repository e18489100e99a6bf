"""Held-out figures of scores. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score

from reward_service.domain import ItemScore
from reward_service.training.dataset import PairExample, SpanExample
from reward_service.training.labels import IGNORED, LABELS, OK_LABEL
from reward_service.training.scoring import scalars

CALIBRATION_BINS = 10
"""Bins of equal width over [0, 1] for the calibration error and the reliability diagram."""

_SMALLEST_PROBABILITY = 1e-12

Metrics = dict[str, float | None]
"""Figures by name; None where one cannot be had, such as the AUC of a single class."""


@dataclass(frozen=True, slots=True)
class JudgedSegments:
    """The S segments that count, of all responses.

    Attributes:
        is_ok: [S] bool, the truth.
        says_ok: [S] bool, whether the model's winning class is the one without error.
        probability: [S] float64 in [0, 1], P(ok).
        lengths_chars: [S] int64, characters of the segment.
    """

    is_ok: NDArray[np.bool_]
    says_ok: NDArray[np.bool_]
    probability: NDArray[np.float64]
    lengths_chars: NDArray[np.int64]


def judged_segments(
    examples: Sequence[SpanExample], scores: Sequence[ItemScore], ok_label: str = OK_LABEL
) -> JudgedSegments:
    """Put the truth beside the scores, without ignored segments.

    Args:
        examples: N responses with labels.
        scores: Their N scores.
        ok_label: What the model calls "no error".
    """
    labels = np.array([label for example in examples for label in example.labels], dtype=np.int64)
    segments = [segment for score in scores for segment in score.segments]
    counted = labels != IGNORED
    return JudgedSegments(
        (labels == LABELS.index(OK_LABEL))[counted],
        np.array([segment.label == ok_label for segment in segments], dtype=bool)[counted],
        np.array([segment.score for segment in segments], dtype=np.float64)[counted],
        np.array([segment.span.end - segment.span.start for segment in segments], dtype=np.int64)[counted],
    )


def span_metrics(examples: Sequence[SpanExample], scores: Sequence[ItemScore], ok_label: str = OK_LABEL) -> Metrics:
    """Figures of a span model over every segment that is not ignored.

    Args:
        examples: N responses with labels.
        scores: Their N scores.
        ok_label: What the model calls "no error".

    Returns:
        `n_segments`; `accuracy`, `f1_error` and `f1_ok` of the winning class; `auc` of the score, the chance that an
        ok segment scores higher than an error; `ece`, see `calibration_error`; `loss`, the mean of -log P(true class).
    """
    judged = judged_segments(examples, scores, ok_label)
    is_ok, says_ok = judged.is_ok, judged.says_ok
    if not len(is_ok):
        return {"n_segments": 0, **dict.fromkeys(("accuracy", "auc", "f1_error", "f1_ok", "ece", "loss"))}
    return {
        "n_segments": len(is_ok),
        "accuracy": float((says_ok == is_ok).mean()),
        "auc": float(roc_auc_score(is_ok, judged.probability)) if 0 < is_ok.sum() < len(is_ok) else None,
        "f1_error": float(f1_score(~is_ok, ~says_ok, zero_division=0.0)),
        "f1_ok": float(f1_score(is_ok, says_ok, zero_division=0.0)),
        "ece": calibration_error(judged.probability, is_ok),
        "loss": float(_surprise(judged).mean()),
    }


def weighted_loss(
    examples: Sequence[SpanExample], scores: Sequence[ItemScore], class_weights: NDArray[np.float32]
) -> float | None:
    """The mean of -log P(true class) with a weight for each class, by index; None where no segment counts."""
    judged = judged_segments(examples, scores)
    if not len(judged.is_ok):
        return None
    weights = np.where(judged.is_ok, class_weights[LABELS.index(OK_LABEL)], class_weights[LABELS.index("error")])
    return float(np.average(_surprise(judged), weights=weights))


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Segments whose P(ok) lies in one range: how many, their mean P(ok), and the share that is ok."""

    count: int
    probability: float
    ok_share: float


def calibration_bins(probability: NDArray[np.float64], is_ok: NDArray[np.bool_]) -> list[CalibrationBin]:
    """The bins that hold something, from the lowest P(ok) up.

    Args:
        probability: [S] float64, P(ok).
        is_ok: [S] bool, the truth.
    """
    bins = np.minimum((probability * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    return [
        CalibrationBin(int(inside.sum()), float(probability[inside].mean()), float(is_ok[inside].mean()))
        for inside in (bins == number for number in range(CALIBRATION_BINS))
        if inside.any()
    ]


def calibration_error(probability: NDArray[np.float64], is_ok: NDArray[np.bool_]) -> float:
    """Expected calibration error: how far a bin's mean P(ok) is from its share of ok segments, by its size.

    Args:
        probability: [S] float64, P(ok); not empty.
        is_ok: [S] bool, the truth.

    Source: Guo et al., arXiv 1706.04599, of P(ok) in place of the winning class's probability.
    """
    bins = calibration_bins(probability, is_ok)
    return sum(one.count * abs(one.probability - one.ok_share) for one in bins) / len(is_ok)


def pair_margins(examples: Sequence[PairExample], scores: Sequence[ItemScore]) -> list[NDArray[np.float64]]:
    """For each of N questions the winner's score less the loser's, one a pair.

    Args:
        examples: N questions with their pairs.
        scores: The scores of their responses, one question after the other.
    """
    margins: list[NDArray[np.float64]] = []
    first = 0
    for example in examples:
        values = scalars(scores[first : first + len(example.encoded)])
        first += len(example.encoded)
        margins.append(np.array([values[winner] - values[loser] for winner, loser in example.row.pairs]))
    return margins


def pair_metrics(examples: Sequence[PairExample], scores: Sequence[ItemScore]) -> Metrics:
    """Figures of a pairwise model over every pair.

    Args:
        examples: N questions with their pairs.
        scores: The scores of their responses, one question after the other.

    Returns:
        `n_pairs`; `accuracy`, the share of pairs whose winner scores higher; `loss`, -log sigmoid(winner - loser),
        averaged over the pairs of a question, then over questions.
    """
    margins = [of_question for of_question in pair_margins(examples, scores) if len(of_question)]
    if not margins:
        return {"n_pairs": 0, "accuracy": None, "loss": None}
    every = np.concatenate(margins)
    losses = [float(np.logaddexp(0.0, -of_question).mean()) for of_question in margins]
    return {"n_pairs": len(every), "accuracy": float((every > 0).mean()), "loss": float(np.mean(losses))}


def _surprise(judged: JudgedSegments) -> NDArray[np.float64]:
    """[S] float64, -log P(true class)."""
    true_class = np.where(judged.is_ok, judged.probability, 1.0 - judged.probability)
    surprise: NDArray[np.float64] = -np.log(np.clip(true_class, _SMALLEST_PROBABILITY, None))
    return surprise
