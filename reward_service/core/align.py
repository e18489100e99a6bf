"""Logits to scores: one for each segment, read where `core.encode` put the separators."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reward_proto.models import ModelKind
from reward_service.domain import Encoded, Head, ItemScore, ScoredSpan
from reward_service.errors import ModelFailedError


def align(head: Head, encoded: Sequence[Encoded], logits: NDArray[np.floating]) -> list[ItemScore | ModelFailedError]:
    """Turn the logits of a batch into the score of every item.

    A classifier's score is the softmax probability of the class that means "no error", its label the winning
    class; a regressor's score is the raw scalar. A sequence model scores a blank response (an empty span) as any
    other text: the scalar stands alone, with no segment.

    Args:
        head: What the model's outputs mean, C classes (1 for a regressor).
        encoded: The B items of the batch, in its order.
        logits: [B, T, C] float for token classification, [B, C] for sequence models.

    Returns:
        B results in order. An item whose logits hold NaN or infinity gets its error in its own place.

    Raises:
        ModelFailedError: The shape of `logits` does not fit the head or the batch.

    Source: read-out at the separator before each segment, arXiv 2306.01693.
    """
    classes = len(head.labels) if head.kind.is_classifier else 1
    reads_tokens = head.kind is ModelKind.TOKEN_CLASSIFICATION
    if logits.ndim != (3 if reads_tokens else 2) or len(logits) != len(encoded) or logits.shape[-1] != classes:
        raise ModelFailedError(f"the runtime gave logits {logits.shape} for {len(encoded)} items and {classes} classes")
    if not reads_tokens:
        return [_score_sequence(head, item, row) for item, row in zip(encoded, logits, strict=True)]
    return _score_segments(head, encoded, logits)


def _score_segments(
    head: Head, encoded: Sequence[Encoded], logits: NDArray[np.floating]
) -> list[ItemScore | ModelFailedError]:
    """Read all the separators of the batch at once: [S_total, C] in place of B small arrays."""
    counts = [len(item.spans) for item in encoded]
    rows = np.repeat(np.arange(len(encoded)), counts)
    columns = np.concatenate([item.readout for item in encoded])
    read = logits[rows, columns].astype(np.float64)
    finite = np.isfinite(read).all(axis=-1)
    scores, winners = _classify(head, np.where(finite[:, None], read, 0.0))
    results: list[ItemScore | ModelFailedError] = []
    first = 0
    for item, count in zip(encoded, counts, strict=True):
        here = slice(first, first + count)
        first += count
        if not finite[here].all():
            results.append(_not_finite())
            continue
        segments = tuple(
            ScoredSpan(span, score, head.labels[winner], tuple(values))
            for span, score, winner, values in zip(
                item.spans, scores[here].tolist(), winners[here].tolist(), read[here].tolist(), strict=True
            )
        )
        mean = float(scores[here].mean()) if count else None
        results.append(ItemScore(segments, mean, item.truncated_tokens))
    return results


def _score_sequence(head: Head, item: Encoded, row: NDArray[np.floating]) -> ItemScore | ModelFailedError:
    read = row.astype(np.float64)
    if not np.isfinite(read).all():
        return _not_finite()
    label = None
    score = float(read[0])
    if head.kind.is_classifier:
        scores, winners = _classify(head, read[None])
        score, label = float(scores[0]), head.labels[int(winners[0])]
    segments = tuple(
        ScoredSpan(span, score, label, tuple(read.tolist())) for span in item.spans if span.end > span.start
    )
    return ItemScore(segments, score, item.truncated_tokens)


def _classify(head: Head, read: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """[S, C] logits to P(ok) [S] and the winning class [S]."""
    exponents = np.exp(read - read.max(axis=-1, keepdims=True))
    probabilities = exponents[:, head.labels.index(head.ok_label)] / exponents.sum(axis=-1)
    return probabilities, read.argmax(axis=-1)


def _not_finite() -> ModelFailedError:
    return ModelFailedError("the model gave NaN or infinity for this item")
