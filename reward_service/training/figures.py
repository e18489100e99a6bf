"""Held-out figures of scores. Pure."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import f1_score, roc_auc_score

from reward_service.domain import ItemScore
from reward_service.training.dataset import PairExample, SpanExample
from reward_service.training.labels import IGNORED, LABELS, OK_LABEL
from reward_service.training.scoring import scalars

_SMALLEST_PROBABILITY = 1e-12

Metrics = dict[str, float | None]
"""Figures by name; None where one cannot be had, such as the AUC of a single class."""


def span_metrics(examples: Sequence[SpanExample], scores: Sequence[ItemScore], ok_label: str = OK_LABEL) -> Metrics:
    """Figures of a span model over every segment that is not ignored.

    Args:
        examples: N responses with labels.
        scores: Their N scores.
        ok_label: What the model calls "no error".

    Returns:
        `n_segments`; `accuracy`, `f1_error` and `f1_ok` of the winning class; `auc` of the score, the chance that an
        ok segment scores higher than an error; `loss`, the mean of -log P(true class).
    """
    labels = np.concatenate([example.labels for example in examples]) if examples else np.empty(0, dtype=np.int64)
    segments = [segment for score in scores for segment in score.segments]
    counted = labels != IGNORED
    is_ok = (labels == LABELS.index(OK_LABEL))[counted]
    predicted = np.array([segment.label == ok_label for segment in segments], dtype=bool)[counted]
    probability = np.array([segment.score for segment in segments])[counted]
    if not len(is_ok):
        return {"n_segments": 0, "accuracy": None, "auc": None, "f1_error": None, "f1_ok": None, "loss": None}
    true_class = np.where(is_ok, probability, 1.0 - probability)
    return {
        "n_segments": len(is_ok),
        "accuracy": float((predicted == is_ok).mean()),
        "auc": float(roc_auc_score(is_ok, probability)) if 0 < is_ok.sum() < len(is_ok) else None,
        "f1_error": float(f1_score(~is_ok, ~predicted, zero_division=0.0)),
        "f1_ok": float(f1_score(is_ok, predicted, zero_division=0.0)),
        "loss": float(-np.log(np.clip(true_class, _SMALLEST_PROBABILITY, None)).mean()),
    }


def pair_metrics(examples: Sequence[PairExample], scores: Sequence[ItemScore]) -> Metrics:
    """Figures of a pairwise model over every pair.

    Args:
        examples: N questions with their pairs.
        scores: The scores of their predictions, one question after the other.

    Returns:
        `n_pairs`; `accuracy`, the share of pairs whose winner scores higher; `loss`, -log sigmoid(winner - loser),
        averaged over the pairs of a question, then over questions.
    """
    correct: list[bool] = []
    losses: list[float] = []
    first = 0
    for example in examples:
        values = scalars(scores[first : first + len(example.encoded)])
        first += len(example.encoded)
        margins = np.array([values[winner] - values[loser] for winner, loser in example.pairs])
        if len(margins):
            correct.extend(margins > 0)
            losses.append(float(np.logaddexp(0.0, -margins).mean()))
    if not correct:
        return {"n_pairs": 0, "accuracy": None, "loss": None}
    return {"n_pairs": len(correct), "accuracy": float(np.mean(correct)), "loss": float(np.mean(losses))}
