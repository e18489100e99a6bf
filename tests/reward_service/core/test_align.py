import math

import numpy as np
import pytest

from reward_proto.models import ModelKind
from reward_service.core.align import align
from reward_service.domain import Encoded, Head, ItemScore, Read, Span
from reward_service.errors import ModelFailedError

SPANS = Head(ModelKind.TOKEN_CLASSIFICATION, ("error", "ok"), "ok")
REGRESSOR = Head(ModelKind.SEQUENCE_REGRESSION)


def encoded(readout: list[int], spans: list[tuple[int, int]], length: int = 6, cut: int = 0) -> Encoded:
    read = Read(np.array(readout, dtype=np.int64), tuple(Span(*s) for s in spans))
    return Encoded(np.zeros(length, dtype=np.int64), (read,), cut)


def score_of(results: tuple[ItemScore | ModelFailedError, ...]) -> ItemScore:
    (result,) = results
    assert isinstance(result, ItemScore)
    return result


def test_reads_the_classes_at_the_separators() -> None:
    logits = np.full((2, 6, 2), 99.0)
    logits[0, 1] = [0.0, math.log(3)]  # P(ok) = 3 / 4
    logits[0, 4] = [math.log(4), 0.0]  # P(ok) = 1 / 5
    logits[1, 2] = [1.0, 1.0]
    first, second = map(
        score_of, align([SPANS], [encoded([1, 4], [(0, 3), (4, 9)], cut=2), encoded([2], [(0, 5)])], logits)
    )
    assert [segment.span for segment in first.segments] == [Span(0, 3), Span(4, 9)]
    assert [segment.score for segment in first.segments] == pytest.approx([0.75, 0.2])
    assert [segment.label for segment in first.segments] == ["ok", "error"]
    assert first.segments[1].logits == pytest.approx((math.log(4), 0.0))
    assert first.sequence_score == pytest.approx((0.75 + 0.2) / 2)
    assert (first.truncated_tokens, second.truncated_tokens) == (2, 0)
    assert second.sequence_score == pytest.approx(0.5)


def test_a_mean_is_over_the_segments_own_tokens() -> None:
    logits = np.full((2, 6, 2), np.nan)
    logits[0, 1:3] = [[0.0, math.log(2)], [0.0, math.log(18)]]  # Their mean is log 6: P(ok) = 6 / 7.
    logits[0, 4] = [math.log(4), 0.0]  # P(ok) = 1 / 5
    spans = (Span(0, 3), Span(4, 9))
    read = Read(np.array([1, 4]), spans, np.array([2, 1]), np.array([2, 1]))
    nothing = np.zeros(0, dtype=np.int64)
    blank = Read(nothing, (), nothing, nothing)
    items = [Encoded(np.zeros(6, dtype=np.int64), (one,)) for one in (read, blank)]
    first, second = map(score_of, align([SPANS], items, logits))
    assert [segment.score for segment in first.segments] == pytest.approx([6 / 7, 0.2])
    assert (second.segments, second.sequence_score) == ((), None)
    assert score_of(align([SPANS], items[1:], logits[1:])[0]).sequence_score is None


def test_a_token_that_is_not_finite_fails_a_mean_that_it_is_in() -> None:
    logits = np.zeros((1, 3, 2))
    logits[0, 1] = np.inf
    item = Encoded(np.zeros(3, dtype=np.int64), (Read(np.array([0]), (Span(0, 1),), np.array([2]), np.array([2])),))
    ((result,),) = align([SPANS], [item], logits)
    assert isinstance(result, ModelFailedError)


def test_a_regressor_may_be_read_from_its_tokens() -> None:
    head = Head(ModelKind.SEQUENCE_REGRESSION, name="completeness")
    logits = np.array([[[9.0], [1.0], [-4.0]]])
    for divisor, expected in ((2, -1.5), (64, -3 / 64)):
        read = Read(np.array([1]), (Span(0, 4),), np.array([2]), np.array([divisor]))
        item = Encoded(np.zeros(3, dtype=np.int64), (read,))
        assert score_of(align([head], [item], logits)[0]).sequence_score == expected


def test_the_ok_class_is_found_by_name_not_by_place() -> None:
    logits = np.array([[[0.0, math.log(3), 0.0]]])
    labels = ("a", "ok", "b")
    other = ("ok", "a", "b")
    item = encoded([0], [(0, 1)])
    assert score_of(align([Head(SPANS.kind, labels, "ok")], [item], logits)[0]).sequence_score == pytest.approx(0.6)
    assert score_of(align([Head(SPANS.kind, other, "ok")], [item], logits)[0]).sequence_score == pytest.approx(0.2)


def test_independent_classes_have_a_probability_each() -> None:
    """The score is 1 - the largest among the errors; a class that is no error, however likely, changes nothing."""
    head = Head(
        ModelKind.SEQUENCE_CLASSIFICATION, ("praise", "rude", "threat"), "fine", error_labels=("threat", "rude")
    )
    logits = np.array([[9.0, math.log(3), 0.0], [9.0, -math.log(4), -800.0], [0.0, 800.0, 1.0]])
    results = [score_of(one) for one in align([head], [encoded([], [(0, 4)])] * 3, logits)]
    assert [one.sequence_score for one in results] == pytest.approx([1 / 4, 4 / 5, 0.0])
    assert [one.segments[0].label for one in results] == ["rude", "fine", "rude"]
    assert head.verdicts == ("praise", "rude", "threat", "fine")
    single = Head(ModelKind.SEQUENCE_CLASSIFICATION, ("toxic",), "ok", error_labels=("toxic",))
    (result,) = align([single], [encoded([], [(0, 4)])], np.array([[-40.0]]))
    assert score_of(result).sequence_score == pytest.approx(1.0 / (1.0 + math.exp(-40.0)), rel=1e-15)


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[[-5000.0, 5000.0]]], dtype=np.float32)
    assert score_of(align([SPANS], [encoded([0], [(0, 1)])], logits)[0]).sequence_score == 1.0


def test_a_regressor_gives_its_raw_scalar() -> None:
    item = encoded([], [(2, 7)])
    result = score_of(align([REGRESSOR], [item], np.array([[-3.5]]))[0])
    assert result.sequence_score == -3.5
    assert [(s.span, s.score, s.label) for s in result.segments] == [(Span(2, 7), -3.5, None)]


def test_a_sequence_classifier_gives_one_probability() -> None:
    head = Head(ModelKind.SEQUENCE_CLASSIFICATION, ("ok", "bad"), "ok")
    result = score_of(align([head], [encoded([], [(0, 4)])], np.array([[math.log(9), 0.0]]))[0])
    assert result.sequence_score == pytest.approx(0.9)
    assert result.segments[0].label == "ok"


def test_a_blank_response_of_a_sequence_model_has_a_score_and_no_segment() -> None:
    result = score_of(align([REGRESSOR], [encoded([], [(0, 0)])], np.array([[1.25]]))[0])
    assert result.segments == ()
    assert result.sequence_score == 1.25


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_item_that_is_not_finite_fails_alone(value: float) -> None:
    logits = np.zeros((3, 6, 2))
    logits[1, 2, 0] = value
    results = align([SPANS], [encoded([1, 2], [(0, 1), (2, 3)])] * 3, logits)
    assert [type(result) for (result,) in results] == [ItemScore, ModelFailedError, ItemScore]
    scalar = align([REGRESSOR], [encoded([], [(0, 1)])] * 2, np.array([[value], [1.0]]))
    assert [type(result) for (result,) in scalar] == [ModelFailedError, ItemScore]


def test_what_is_not_finite_outside_the_separators_is_not_read() -> None:
    logits = np.full((1, 6, 2), math.nan)
    logits[0, 3] = 0.0
    assert score_of(align([SPANS], [encoded([3], [(0, 1)])], logits)[0]).sequence_score == 0.5


@pytest.mark.parametrize("shape", [(1, 6, 3), (2, 6, 2), (1, 2)])
def test_logits_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelFailedError, match="logits"):
        align([SPANS], [encoded([0], [(0, 1)])], np.zeros(shape))


def test_each_head_reads_its_own_columns_at_its_own_places() -> None:
    heads = [
        Head(ModelKind.TOKEN_CLASSIFICATION, ("error", "ok"), "ok", "fine"),
        Head(ModelKind.TOKEN_CLASSIFICATION, ("ok", "a", "b"), "ok", "coarse", 2),
        Head(ModelKind.SEQUENCE_REGRESSION, name="whole", first_column=5),
    ]
    logits = np.full((1, 5, 6), 99.0)
    logits[0, 1, :2], logits[0, 3, :2] = [0.0, math.log(3)], [math.log(4), 0.0]
    logits[0, 1, 2:5] = [math.log(2), 0.0, 0.0]
    logits[0, 0, 5] = -7.5

    def read(positions: list[int], *spans: Span) -> Read:
        return Read(np.array(positions), spans)

    reads = (read([1, 3], Span(0, 3), Span(4, 9)), read([1], Span(0, 9)), read([0], Span(0, 9)))
    ((fine, coarse, whole),) = align(heads, [Encoded(np.zeros(5, dtype=np.int64), reads)], logits)
    assert isinstance(fine, ItemScore)
    assert [segment.score for segment in fine.segments] == pytest.approx([0.75, 0.2])
    assert [segment.span for segment in fine.segments] == [Span(0, 3), Span(4, 9)]
    assert isinstance(coarse, ItemScore)
    assert (coarse.sequence_score, coarse.segments[0].label) == (pytest.approx(0.5), "ok")
    assert isinstance(whole, ItemScore)
    assert (whole.sequence_score, whole.segments[0].label) == (-7.5, None)


def test_a_head_that_is_not_finite_leaves_the_others_alone() -> None:
    heads = [REGRESSOR, Head(ModelKind.SEQUENCE_REGRESSION, name="b", first_column=1)]
    reads = (Read(np.array([0]), (Span(0, 1),)),) * 2
    logits = np.array([[[math.nan, 2.0]]])
    ((first, second),) = align(heads, [Encoded(np.zeros(1, dtype=np.int64), reads)], logits)
    assert isinstance(first, ModelFailedError)
    assert isinstance(second, ItemScore)
    assert second.sequence_score == 2.0
