"""Logits to scores: for each head one a segment, read where `core.encode` says."""

from collections.abc import Callable, Sequence
from math import exp, fsum, isfinite, log1p

import numpy as np
from numpy.typing import NDArray

from reward_proto.models import ModelKind
from reward_service.domain import Encoded, Head, ItemScore, Read, ScoredSpan
from reward_service.errors import ModelFailedError


def align(
    heads: Sequence[Head], encoded: Sequence[Encoded], logits: NDArray[np.floating]
) -> list[tuple[ItemScore | ModelFailedError, ...]]:
    """Turn the logits of a batch into the scores of every item.

    A classifier's score is the softmax probability of the class that means "no error", its label the winning
    class. Where classes do not exclude each other, each has its own probability, the sigmoid of its logit: the score
    is 1 - the largest one among the errors, and the label is that error where it is over 1/2. A regressor's score is
    the raw scalar. A sequence head scores a blank response (an empty span) as any other text: the scalar stands
    alone, with no segment.

    Args:
        heads: What the model's outputs mean: K heads with C columns in all (1 for a regressor).
        encoded: The B items of the batch, in its order.
        logits: [B, T, C] float where heads read tokens, [B, C] for a single sequence head without a name of its own.

    Returns:
        For each of the B items in order its K results. Where a head's logits hold NaN or infinity, its error stands in
        its own place.

    Raises:
        ModelFailedError: The shape of `logits` does not fit the heads or the batch.

    Source: read-out at the separator before each segment, arXiv 2306.01693; the mean is this project's.
    """
    classes = sum(head.width for head in heads)
    is_network = len(heads) > 1 or bool(heads[0].name)
    reads_tokens = is_network or heads[0].kind is ModelKind.TOKEN_CLASSIFICATION
    if logits.ndim != (3 if reads_tokens else 2) or len(logits) != len(encoded) or logits.shape[-1] != classes:
        raise ModelFailedError(f"the runtime gave logits {logits.shape} for {len(encoded)} items and {classes} classes")
    by_head = [
        _score_head(
            head,
            [item.reads[index] for item in encoded],
            encoded,
            logits if len(heads) == 1 else logits[..., head.columns],
        )
        for index, head in enumerate(heads)
    ]
    return list(zip(*by_head, strict=True))


def _score_head(
    head: Head, reads: Sequence[Read], encoded: Sequence[Encoded], logits: NDArray[np.floating]
) -> list[ItemScore | ModelFailedError]:
    # Plain numbers: a segment has a handful of them, for which calls of numpy take longer, three times so for one item.
    judge = _judge_of(head)
    results: list[ItemScore | ModelFailedError] = []
    for read, item, of_item in zip(reads, encoded, logits, strict=True):
        values = [of_item.tolist()] if of_item.ndim == 1 else _read_tokens(read, of_item)
        if not all(isfinite(value) for of_segment in values for value in of_segment):
            results.append(ModelFailedError("the model gave NaN or infinity for this item"))
            continue
        judged = [judge(of_segment) for of_segment in values]
        segments = tuple(
            ScoredSpan(span, score, label, tuple(of_segment))
            for span, (score, label), of_segment in zip(read.spans, judged, values, strict=True)
            if span.end > span.start
        )
        mean = fsum(score for score, _ in judged) / len(judged) if judged else None
        results.append(ItemScore(segments, mean, item.truncated_tokens))
    return results


def _read_tokens(read: Read, logits: NDArray[np.floating]) -> list[list[float]]:
    """[T, C] logits to S times C: one token's, or the mean or sum over a segment's own tokens."""
    if read.widths is None or read.divisors is None:
        alone: list[list[float]] = logits.take(read.positions, axis=0).tolist()
        return alone
    places = zip(read.positions.tolist(), read.widths.tolist(), read.divisors.tolist(), strict=True)
    return [
        (logits[first : first + width].sum(axis=0, dtype=np.float64) / divisor).tolist()
        for first, width, divisor in places
    ]


def _judge_of(head: Head) -> Callable[[Sequence[float]], tuple[float, str | None]]:
    """What turns a segment's C logits into its score and its label."""
    if not head.kind.is_classifier:
        return lambda values: (values[0], None)
    labels = head.labels
    if head.error_labels:
        columns = [labels.index(label) for label in head.error_labels]

        def look_for_errors(values: Sequence[float]) -> tuple[float, str]:
            errors = [values[column] for column in columns]
            worst = max(errors)
            # 1 - sigmoid(x) = sigmoid(-x) = exp(-log(1 + exp(x))), which neither overflows nor loses the digits of a
            # small one.
            score = exp(-(max(worst, 0.0) + log1p(exp(-abs(worst)))))
            return score, head.error_labels[errors.index(worst)] if worst > 0.0 else head.ok_label

        return look_for_errors
    ok = labels.index(head.ok_label)

    def classify(values: Sequence[float]) -> tuple[float, str]:
        largest = max(values)
        exponents = [exp(value - largest) for value in values]
        return exponents[ok] / sum(exponents), labels[values.index(largest)]

    return classify
