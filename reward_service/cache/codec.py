"""Scores to bytes and back, to the bit.

JSON, because it is safe to read whatever stands in a file, and because Python writes a float with as many digits as
tell it from every other.
"""

import json
from collections.abc import Sequence

from reward_service.domain import ItemScore, ScoredSpan, Span


def encode_scores(scores: Sequence[ItemScore]) -> bytes:
    """What each head says of one item, as bytes."""
    told = [
        [
            [[one.span.start, one.span.end, one.score, one.label, one.logits] for one in score.segments],
            score.sequence_score,
            score.truncated_tokens,
        ]
        for score in scores
    ]
    return json.dumps(told, separators=(",", ":"), allow_nan=False).encode()


def decode_scores(content: bytes, heads: int) -> tuple[ItemScore, ...]:
    """What `encode_scores` was given, marked as cached.

    Args:
        content: The bytes.
        heads: How many scores there must be.

    Raises:
        ValueError: They are not such bytes.
    """
    try:
        scores = tuple(
            ItemScore(
                tuple(
                    ScoredSpan(Span(start, end), score, label, tuple(logits))
                    for start, end, score, label, logits in segments
                ),
                sequence_score,
                truncated_tokens,
                cached=True,
            )
            for segments, sequence_score, truncated_tokens in json.loads(content)
        )
    except (TypeError, RecursionError) as error:
        raise ValueError(f"no scores: {error}") from error
    if len(scores) != heads:
        raise ValueError(f"{len(scores)} scores where there must be {heads}")
    return scores
