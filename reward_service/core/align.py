"""Logits to scores: for each head one a segment, read where `core.encode` says."""

from collections.abc import Sequence
from dataclasses import dataclass

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
        _score_head(head, [item.reads[index] for item in encoded], encoded, logits[..., head.columns])
        for index, head in enumerate(heads)
    ]
    return list(zip(*by_head, strict=True))


def _score_head(
    head: Head, reads: Sequence[Read], encoded: Sequence[Encoded], logits: NDArray[np.floating]
) -> list[ItemScore | ModelFailedError]:
    """Read all that a head reads of the batch at once: [S_total, C] in place of B small arrays."""
    if logits.ndim == 2:
        counts = [1] * len(reads)
        read = logits.astype(np.float64)
    else:
        counts = [len(one.positions) for one in reads]
        read = _read_tokens(reads, logits)
    finite = np.isfinite(read)
    is_all_finite = bool(finite.all())
    if not is_all_finite:
        read = np.where(finite.all(axis=1, keepdims=True), read, 0.0)
    scores, labels = _judge(head, read)
    results: list[ItemScore | ModelFailedError] = []
    first = 0
    for one, item, count in zip(reads, encoded, counts, strict=True):
        here = slice(first, first + count)
        first += count
        if not is_all_finite and not finite[here].all():
            results.append(ModelFailedError("the model gave NaN or infinity for this item"))
            continue
        segments = tuple(
            ScoredSpan(span, score, label, tuple(values))
            for span, score, label, values in zip(
                one.spans, scores[here].tolist(), labels[here], read[here].tolist(), strict=True
            )
            if span.end > span.start
        )
        mean = float(scores[here].mean()) if count else None
        results.append(ItemScore(segments, mean, item.truncated_tokens))
    return results


@dataclass(frozen=True, slots=True)
class TokenPlaces:
    """Which of a batch's tokens the segments are read from.

    Attributes:
        rows: [N] int64 in the batch.
        columns: [N] int64 in the input.
        widths: [S] int64, how many of the N tokens are each segment's, in order; one each when absent.
        divisors: [S] int64, what the sums over them are divided by. There where widths are.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    widths: NDArray[np.int64] | None = None
    divisors: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, rows: Sequence[int], reads: Sequence[Read]) -> "TokenPlaces":
        """Put together what one head reads of several inputs.

        Args:
            rows: Places in the batch, one for each of `reads`.
            reads: Where one head's segments are read, S of them in all.
        """
        if len(reads) == 1:  # Small arrays: what counts is how many calls there are.
            positions = reads[0].positions
            at_rows = np.full(len(positions), rows[0])
        else:
            positions = np.concatenate([read.positions for read in reads])
            at_rows = np.repeat(np.array(rows, dtype=np.int64), [len(read.positions) for read in reads])
        own = [(read.widths, read.divisors) for read in reads if read.widths is not None and read.divisors is not None]
        if not own:
            return cls(at_rows, positions)
        widths, divisors = (np.concatenate(part) for part in zip(*own, strict=True))
        firsts = np.cumsum(widths) - widths
        columns = np.arange(int(widths.sum())) + np.repeat(positions - firsts, widths)
        return cls(np.repeat(at_rows, widths), columns, widths, divisors)


def _read_tokens(reads: Sequence[Read], logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """[B, T, C] logits to [S, C]: one token's, or the mean or sum over a segment's own tokens."""
    places = TokenPlaces.of(range(len(reads)), reads)
    tokens: NDArray[np.float64] = logits[places.rows, places.columns].astype(np.float64)
    if places.widths is None or places.divisors is None or not len(places.widths):
        return tokens  # One each; and `reduceat` cannot take the empty list of a batch of blank responses.
    added: NDArray[np.float64] = np.add.reduceat(tokens, np.cumsum(places.widths) - places.widths)
    return added / places.divisors[:, None]


def _judge(head: Head, read: NDArray[np.float64]) -> tuple[NDArray[np.float64], Sequence[str | None]]:
    """[S, C] logits to scores [S] and the label of each."""
    if not head.kind.is_classifier:
        return read[:, 0], [None] * len(read)
    return _look_for_errors(head, read) if head.error_labels else _classify(head, read)


def _look_for_errors(head: Head, read: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[str]]:
    """[S, C] logits of independent classes to 1 - P(worst error) [S] and that error, or else what means "no error"."""
    errors = read[:, [head.labels.index(label) for label in head.error_labels]]
    worst = errors.argmax(axis=-1)
    largest = errors.max(axis=-1)
    # 1 - sigmoid(x) = sigmoid(-x) = exp(-log(1 + exp(x))), which neither overflows nor loses the digits of a small one.
    return np.exp(-np.logaddexp(0.0, largest)), [
        head.error_labels[index] if logit > 0.0 else head.ok_label
        for index, logit in zip(worst.tolist(), largest.tolist(), strict=True)
    ]


def _classify(head: Head, read: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[str]]:
    """[S, C] logits to P(ok) [S] and the winning class of each."""
    exponents = np.exp(read - read.max(axis=-1, keepdims=True))
    probabilities = exponents[:, head.labels.index(head.ok_label)] / exponents.sum(axis=-1)
    return probabilities, [head.labels[winner] for winner in read.argmax(axis=-1)]
