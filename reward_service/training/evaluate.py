"""Held-out figures, from scores that come through the service's own collate, backend and align."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score

from reward_service.core.align import align
from reward_service.core.backend import Backend
from reward_service.core.collate import collate
from reward_service.domain import Encoded, Head, ItemScore
from reward_service.errors import ModelFailedError
from reward_service.training.dataset import PairExample, SpanExample
from reward_service.training.labels import IGNORED, LABELS, OK_LABEL

MAX_BATCH_TOKENS = 8192
"""Padded tokens of one batch of an evaluation."""

_SMALLEST_PROBABILITY = 1e-12

Metrics = dict[str, float | None]
"""Figures by name; None where one cannot be had, such as the AUC of a single class."""


def score_all(backend: Backend, head: Head, encoded: Sequence[Encoded], pad_id: int) -> list[ItemScore]:
    """Score every input, in batches of like lengths.

    Returns:
        One score for each input, in order.

    Raises:
        ModelFailedError: The runtime raised, or gave NaN or infinity.
    """
    scores: list[ItemScore | None] = [None] * len(encoded)
    for indices in _batches([item.length_tokens for item in encoded]):
        batch = [encoded[index] for index in indices]
        for index, score in zip(indices, align(head, batch, backend.infer(collate(batch, pad_id))), strict=True):
            if isinstance(score, ModelFailedError):
                raise score
            scores[index] = score
    return [score for score in scores if score is not None]


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


def scalars(scores: Sequence[ItemScore]) -> NDArray[np.float64]:
    """The sequence scores, [N]."""
    return np.array([score.sequence_score for score in scores], dtype=np.float64)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in order of length, as many at a time as `MAX_BATCH_TOKENS` holds padded."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[index] * (len(batch) + 1) > MAX_BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
