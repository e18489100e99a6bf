import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_service.cache.codec import decode_scores, encode_scores
from reward_service.domain import ItemScore, ScoredSpan, Span

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SEGMENTS = st.builds(
    ScoredSpan,
    st.builds(Span, st.integers(0, 10**6), st.integers(0, 10**6)),
    FLOATS,
    st.none() | st.text(max_size=4),
    st.lists(FLOATS, max_size=3).map(tuple),
)
SCORES = st.builds(
    ItemScore,
    st.lists(SEGMENTS, max_size=4).map(tuple),
    st.none() | FLOATS,
    st.integers(0, 9),
    st.just(True),
)


def bits(scores: tuple[ItemScore, ...]) -> list[bytes]:
    """Every float of some scores as its eight bytes: 0.0 and -0.0 are equal and not the same."""
    floats = [
        value
        for score in scores
        for value in (
            *(number for one in score.segments for number in (one.score, *one.logits)),
            *([] if score.sequence_score is None else [score.sequence_score]),
        )
    ]
    return [struct.pack("<d", value) for value in floats]


@settings(max_examples=60, deadline=None)
@given(st.lists(SCORES, min_size=1, max_size=3).map(tuple))
def test_comes_back_to_the_bit(scores: tuple[ItemScore, ...]) -> None:
    found = decode_scores(encode_scores(scores), len(scores))
    assert found == scores
    assert bits(found) == bits(scores)


def test_is_marked_as_cached() -> None:
    (found,) = decode_scores(encode_scores([ItemScore((), 5e-324)]), 1)
    assert found == ItemScore((), 5e-324, cached=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_scores([ItemScore((), value)])


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"{}", b"[1]", b"[[1,2]]", b"[[[[0,1,2]],0,0]]", b"[]", b"[[[],0,0],[[],0,0]]", b"[" * 9999],
)
def test_bytes_that_are_no_scores_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own messages among them
        decode_scores(content, 1)
