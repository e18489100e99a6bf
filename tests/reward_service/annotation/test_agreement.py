import numpy as np
import pytest

from reward_proto.feedback import Feedback, MissingInfo, SpanError
from reward_service.annotate_settings import AnnotateSettings
from reward_service.annotation.agreement import agreement, alpha, word_types
from reward_service.annotation.annotation import Annotation, Types
from reward_service.annotation.store import Kept
from reward_service.annotation.task import Task

TYPES = Types.of(AnnotateSettings())
TASK = Task.of("q", [("t", "s", "u")], ["one two 👍 four", "b"])


def kept(name: str, errors: list[tuple[int, int, str]], missing: int | None = None, choice: int | None = None) -> Kept:
    entries = [] if missing is None else [MissingInfo(error_type="m", passage_id=1, sentence_id=[missing])]
    spans = [SpanError(error_type=kind, start=start, end=end) for start, end, kind in errors]
    feedback = Feedback(errors=spans, missing_info=entries)
    return Kept(name, Annotation(feedback=feedback, preference=[choice, *[None] * 5]), True, 1)


# Krippendorff's own example (2011, "Computing Krippendorff's alpha-reliability", section C): nominal alpha is .743.
EXAMPLE = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def test_krippendorffs_own_example() -> None:
    ratings = [
        (str(coder), unit, str(value))
        for coder, row in enumerate(EXAMPLE)
        for unit, value in enumerate(row)
        if value is not None
    ]
    assert alpha(ratings) == pytest.approx(0.743, abs=5e-4)


def test_alpha_is_undefined_without_two_values() -> None:
    assert alpha([]) is None
    assert alpha([("a", 1, ""), ("b", 1, "")]) is None
    assert alpha([("a", 1, "x"), ("b", 2, "y")]) is None, "no unit has two ratings"
    assert alpha([("a", 1, "x"), ("b", 1, "x"), ("a", 2, "y"), ("b", 2, "y")]) == 1.0


def test_a_span_marks_the_words_of_which_it_covers_half() -> None:
    def types(*spans: tuple[int, int, str]) -> list[str]:
        errors = [SpanError(error_type=kind, start=start, end=end) for start, end, kind in spans]
        return word_types("one two 👍 four", errors, ["A", "B"])

    assert types((0, 7, "A")) == ["A", "A", "", ""]
    assert types((1, 5, "A")) == ["A", "", "", ""], "2 of 3 letters, and 1 of 3"
    assert types((8, 9, "A")) == ["", "", "A", ""], "the emoji is one code point"
    assert types((10, 12, "A"), (10, 14, "B")) == ["", "", "", "A B"]
    assert types((0, 14, "C")) == ["", "", "", ""]


def test_words_sentences_and_pairs_are_compared() -> None:
    # Words: anna marks 1 and 2, bob 1 alone. By hand: o(x,x)=2, o(-,-)=4, o(x,-)=o(-,x)=1; n_x=3, n_-=5, n=8;
    # observed disagreement 2/8, expected 2*3*5/(8*7); alpha = 1 - (2/8)/(30/56) = 8/15.
    anna = kept("anna", [(0, 7, "Irrelevant")], missing=1, choice=1)
    bob = kept("bob", [(0, 3, "Irrelevant")], missing=1, choice=2)
    found = agreement([(TASK, anna), (TASK, bob)], TYPES)
    assert (found.tasks, found.annotators) == (1, 2)
    assert found.spans == pytest.approx(8 / 15)
    assert found.categories == {"relevance": found.spans, "factuality": None}
    assert found.missing == 1.0
    # One pair, two answers: every pair of values disagrees, as chance would have it.
    assert found.preference == pytest.approx(0.0)


def test_a_category_sees_its_own_types_alone() -> None:
    anna = kept("anna", [(0, 7, "Irrelevant")])
    bob = kept("bob", [(0, 7, "Unverifiable")])
    found = agreement([(TASK, anna), (TASK, bob)], TYPES)
    assert found.spans is not None
    assert found.spans < 1
    # Two of four words marked by one and by nobody else: by hand 1 - (4/8) / (2*2*6/56).
    assert found.categories["relevance"] == pytest.approx(1 - (4 / 8) / (24 / 56))


def test_chance_is_about_zero() -> None:
    rng = np.random.default_rng(0)
    ratings = [(coder, unit, str(rng.integers(3))) for coder in "abc" for unit in range(600)]
    value = alpha(ratings)
    assert value is not None
    assert abs(value) < 0.06


def test_what_one_person_finished_alone_does_not_count() -> None:
    found = agreement([(TASK, kept("anna", [(0, 3, "Irrelevant")]))], TYPES)
    assert (found.tasks, found.annotators, found.spans) == (0, 0, None)
