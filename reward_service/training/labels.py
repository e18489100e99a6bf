"""Error spans to one class for each segment. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reward_proto.feedback import SpanError
from reward_service.domain import Span

LABELS = ("error", "ok")
"""Class names by index. The order is stored with every model; nothing sorts it."""

OK_LABEL = "ok"
IGNORED = -100
"""Class of a segment that the loss leaves out; torch's default for cross-entropy."""

OVERLAP_SHARE = 0.5
"""An error span marks a segment when it covers this share of it, or has this share of itself in it."""


@dataclass(frozen=True, slots=True)
class SpanRule:
    """Which error spans make a segment an error.

    Attributes:
        error_types: Those that do.
        ignore_error_types: A segment with only these is left out of the loss.
        min_error_words: Spans with fewer words are dropped first.
    """

    error_types: frozenset[str]
    ignore_error_types: frozenset[str] = frozenset()
    min_error_words: int = 0


def label_segments(
    text: str, segments: Sequence[Span], errors: Sequence[SpanError], rule: SpanRule
) -> NDArray[np.int64]:
    """Class of each segment.

    An error span marks every segment of which it covers at least half, and the one in which at least half of it
    lies. So each span marks at least one segment, while a span that runs a word over into the next one leaves that
    one alone. Annotators' spans often do.

    Args:
        text: The response.
        segments: S segments in order.
        errors: The annotator's spans in `text`.
        rule: Which of them count.

    Returns:
        [S] int64 indices into `LABELS`, or `IGNORED`.

    Source: labels by overlap, short spans dropped for relevance, relevance errors ignored for factuality:
        arXiv 2306.01693, released code; the share of overlap is this project's.
    """
    labels = np.full(len(segments), LABELS.index(OK_LABEL), dtype=np.int64)
    kept = [error for error in errors if len(text[error.start : error.end].split()) >= rule.min_error_words]
    ignored = _marked(segments, [error for error in kept if error.error_type in rule.ignore_error_types])
    wrong = _marked(segments, [error for error in kept if error.error_type in rule.error_types])
    labels[ignored] = IGNORED
    labels[wrong] = LABELS.index("error")
    return labels


def _marked(segments: Sequence[Span], errors: Sequence[SpanError]) -> NDArray[np.bool_]:
    marked = np.zeros(len(segments), dtype=bool)
    starts = np.array([segment.start for segment in segments], dtype=np.int64)
    ends = np.array([segment.end for segment in segments], dtype=np.int64)
    for error in errors:
        overlap = np.clip(np.minimum(ends, error.end) - np.maximum(starts, error.start), 0, None)
        # Of the span only what lies in segments counts: white space between them belongs to none.
        in_segments = overlap.sum()
        marked |= (overlap > 0) & (
            (overlap >= OVERLAP_SHARE * (ends - starts)) | (overlap >= OVERLAP_SHARE * in_segments)
        )
    return marked
