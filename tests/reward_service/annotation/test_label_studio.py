from typing import Any

import pytest

from reward_service.annotation.annotation import Annotation
from reward_service.annotation.label_studio import read_label_studio, write_label_studio
from reward_service.annotation.offsets import Offsets
from reward_service.annotation.store import Kept
from reward_service.annotation.task import Task

# Of Label Studio's own tests of its editor (web/libs/editor/tests/integration/e2e/ner/emoji.cy.ts): code points, a line
# break counts one and is told as a backslash and an n.
EMOJI_TEXT = "🐱 Warning:\n🐱 This is a test"
EMOJI_VALUE = {"start": 2, "end": 27, "text": "Warning:\\n🐱 This is a test", "labels": ["Irrelevant"]}


def exported(text: str, *results: dict[str, Any], **data: Any) -> list[dict[str, Any]]:
    annotation = {"completed_by": {"id": 3, "email": "anna@example.org"}, "result": list(results)}
    return [{"id": 1, "data": {"question": "q", "response": text, **data}, "annotations": [annotation]}]


def labels(value: dict[str, Any], name: str = "error", to: str = "response") -> dict[str, Any]:
    return {"id": "r1", "from_name": name, "to_name": to, "type": "labels", "value": value}


def test_there_and_back(task: Task, annotation: Annotation) -> None:
    other = Task.of("another", [], ["x"])
    written = write_label_studio([task, other], [(task, Kept("anna", annotation, True, 1))])
    first, second = read_label_studio(written)
    assert first.task == task
    assert first.annotations == {"anna": annotation}
    assert (second.task, second.annotations) == (other, {})


@pytest.mark.parametrize("counted", Offsets)
def test_positions_are_those_that_are_counted(task: Task, annotation: Annotation, counted: Offsets) -> None:
    (written,) = write_label_studio([], [(task, Kept("anna", annotation, True, 1))], counted)
    spans = [one["value"] for one in written["annotations"][0]["result"] if one["from_name"] == "error"]
    expected = {Offsets.CODE_POINTS: [(5, 22), (30, 36)], Offsets.UTF16: [(7, 24), (32, 39)]}[counted]
    text = task.responses[0]
    assert text[5:22] == "day.\nIt ended\r\nin"
    assert text[30:36] == "🎉 two."
    assert [(span["start"], span["end"]) for span in spans] == expected
    assert spans[0]["text"] == "day.\\nIt ended\\n\\nin"
    assert read_label_studio([written], counted)[0].annotations == {"anna": annotation}


def test_its_editors_own_example() -> None:
    (read,) = read_label_studio(exported(EMOJI_TEXT, labels(EMOJI_VALUE)))
    (error,) = read.annotations["anna@example.org"].feedback.errors
    assert read.task.responses[0][error.start : error.end] == "Warning:\n🐱 This is a test"


def test_positions_that_count_otherwise_are_noticed() -> None:
    value = {"start": 3, "end": 29, "text": "Warning:\\n🐱 This is a test", "labels": ["Irrelevant"]}
    with pytest.raises(ValueError, match=r"task 0: .*outside the text"):
        read_label_studio(exported(EMOJI_TEXT, labels(value)))
    (read,) = read_label_studio(exported(EMOJI_TEXT, labels(value)), Offsets.UTF16)
    assert read.annotations["anna@example.org"].feedback.errors[0].start == 2
    shifted = {"start": 15, "end": 19, "text": "This", "labels": ["Irrelevant"]}
    with pytest.raises(ValueError, match="positions not code_points"):
        read_label_studio(exported(EMOJI_TEXT, labels(shifted)))


def test_passages_without_structure_are_divided() -> None:
    value = {"start": 13, "end": 26, "labels": ["Missing-Answer"]}
    data = exported("r", labels(value, "missing", "passages"), passages="One is here. Two is there.")
    (read,) = read_label_studio(data)
    assert read.task.passages == (("", "One is here.", "Two is there."),)


def test_cancelled_ones_are_no_annotations() -> None:
    content = exported("r")
    content[0]["annotations"][0]["was_cancelled"] = True
    assert read_label_studio(content)[0].annotations == {}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({}, "list of tasks"),
        ([{}], "task 0"),
        (exported("r", labels({"start": 0, "end": 9, "labels": ["x"]})), "outside the text"),
        (exported("r", labels({}, "stars")), "'stars'"),
        (exported("r", {"from_name": "preference_1_2", "value": {"choices": ["both"]}}), "neither, first, second"),
        (exported("r", {"from_name": "preference_1_2", "value": {"choices": ["first"]}}), "not there"),
        (exported(""), "no response"),
        (exported("r", passages=3), "neither a text"),
    ],
)
def test_faults_name_the_task(content: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read_label_studio(content)


def test_an_explanation_belongs_to_its_region() -> None:
    span = {"start": 0, "end": 1, "labels": ["Redundant"]}
    why = {"id": "r1", "from_name": "explanation", "type": "textarea", "value": {**span, "text": ["said before"]}}
    (read,) = read_label_studio(exported("r", labels(span), why))
    assert read.annotations["anna@example.org"].feedback.errors[0].explanation == "said before"
