from itertools import combinations

import numpy as np
import pytest

from reward_proto.feedback import SpanError
from reward_service.domain import Span
from reward_service.training.labels import IGNORED, LABELS, SpanRule, label_segments

ERROR, OK = LABELS.index("error"), LABELS.index("ok")
TEXT = "aaaa bbbb cccc, dddd eeee ffff. gggg hhhh"
SEGMENTS = (Span(0, 15), Span(16, 31), Span(32, 41))
RULE = SpanRule(frozenset({"bad"}), frozenset({"other"}))


def error(start: int, end: int, kind: str = "bad") -> SpanError:
    return SpanError(error_type=kind, start=start, end=end)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([], [OK, OK, OK]),
        ([error(0, 15)], [ERROR, OK, OK]),
        # A short span inside a long segment marks it: all of the span is there.
        ([error(5, 9)], [ERROR, OK, OK]),
        # A span that runs four characters over into the next segment leaves that one alone.
        ([error(0, 20)], [ERROR, OK, OK]),
        # A long span covers two wholly and half of the third.
        ([error(0, 37)], [ERROR, ERROR, ERROR]),
        ([error(0, 36)], [ERROR, ERROR, OK]),
        # Two halves of one span: five characters in each segment, and a blank that belongs to none.
        ([error(10, 21)], [ERROR, ERROR, OK]),
        ([error(0, 15, "unknown")], [OK, OK, OK]),
        ([error(0, 15, "other")], [IGNORED, OK, OK]),
        # Both kinds in a segment: it is an error.
        ([error(0, 15, "other"), error(5, 9)], [ERROR, OK, OK]),
    ],
)
def test_labels_by_hand(errors: list[SpanError], expected: list[int]) -> None:
    labels = label_segments(TEXT, SEGMENTS, errors, RULE)
    assert labels.tolist() == expected
    assert labels.dtype == np.int64


def test_short_error_spans_are_dropped() -> None:
    three_words = SpanRule(frozenset({"bad"}), min_error_words=3)
    assert label_segments(TEXT, SEGMENTS, [error(0, 9)], three_words).tolist() == [OK, OK, OK]
    assert label_segments(TEXT, SEGMENTS, [error(0, 14)], three_words).tolist() == [ERROR, OK, OK]


def test_no_segments() -> None:
    assert label_segments("", (), [], RULE).tolist() == []


def test_every_span_that_touches_a_segment_marks_one() -> None:
    for start, end in combinations(range(len(TEXT) + 1), 2):
        labels = label_segments(TEXT, SEGMENTS, [error(start, end)], RULE)
        touches = any(start < segment.end and segment.start < end for segment in SEGMENTS)
        assert (ERROR in labels.tolist()) == touches, (start, end)
