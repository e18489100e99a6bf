import re

import pytest
from pydantic import ValidationError

from reward_proto.feedback import Feedback, MissingInfo, SpanError
from reward_service.annotate_settings import AnnotateSettings
from reward_service.annotation.annotation import (
    Annotation,
    Types,
    checked_name,
    faults_of,
    from_example,
    to_example,
)
from reward_service.annotation.task import Task

TYPES = Types.of(AnnotateSettings())


def marked(start: int, end: int, error_type: str = "Irrelevant") -> Annotation:
    return Annotation(feedback=Feedback(errors=[SpanError(error_type=error_type, start=start, end=end)]))


def missing(passage: int, sentences: list[int], error_type: str = "Missing-Answer") -> Annotation:
    entry = MissingInfo(error_type=error_type, passage_id=passage, sentence_id=sentences)
    return Annotation(feedback=Feedback(missing_info=[entry]))


def test_an_annotation_of_this_task_has_no_fault(task: Task, annotation: Annotation) -> None:
    assert faults_of(task, annotation, done=True, types=TYPES) == []
    assert faults_of(task, Annotation(), done=True, types=TYPES) == []
    whole = len(task.responses[0])
    assert faults_of(task, marked(0, whole), done=True) == []


@pytest.mark.parametrize(
    ("annotation", "fault"),
    [
        (marked(0, 37), "outside the response"),
        (marked(-1, 3), "outside the response"),
        (marked(3, 3), "outside the response"),
        (marked(0, 3, "Boring"), "no error type 'Boring'; there is Irrelevant, Redundant"),
        (missing(3, [1]), "passage 3 of 2"),
        (missing(1, [3]), r"sentences \[3\]"),
        (missing(1, []), r"sentences \[\]"),
        (missing(1, [1], "Gone"), "no type of missing information 'Gone'"),
        (Annotation(preference=[None, None, 1, None, None, None]), "not there"),
    ],
)
def test_what_cannot_be_meant_is_told(task: Task, annotation: Annotation, fault: str) -> None:

    (found,) = faults_of(task, annotation, done=False, types=TYPES)
    assert re.search(fault, found)


def test_a_finished_one_decides_all_pairs_or_none(task: Task) -> None:
    some = Annotation(preference=[1, None, None, None, None, None])
    assert faults_of(task, some, done=False) == []
    (fault,) = faults_of(task, some, done=True)
    assert fault.startswith("2 of 3 pairs are undecided")


def test_a_preference_has_six_entries_of_three_values() -> None:
    for wrong in ([1, 2], [3, None, None, None, None, None]):
        with pytest.raises(ValidationError):
            Annotation(preference=wrong)


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\x00b"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="annotator's name"):
        checked_name(name)
    assert checked_name("  Zoë \t 李 ") == "Zoë 李"


def test_an_example_of_qa_feedback_and_back(task: Task, annotation: Annotation) -> None:
    example = to_example(task, annotation)
    assert example.predictions == (*task.responses, "")
    assert example.preference == [1, 0, 0, 2, 0, 0], "a response that is not there beats nothing"
    error = example.feedback.errors[1]
    assert example.prediction_1[error.start : error.end] == "🎉 two."
    assert from_example(example) == (task, annotation)


def test_undecided_is_not_neither(task: Task) -> None:
    assert to_example(task, Annotation(preference=[1, None, None, None, None, None])).preference == []
    assert to_example(task, Annotation()).preference == []


def test_an_example_with_faults_is_refused(task: Task, annotation: Annotation) -> None:
    example = to_example(task, annotation).model_copy(update={"feedback": marked(0, 99).feedback})
    with pytest.raises(ValueError, match=r"\[0, 99\) is outside"):
        from_example(example)
