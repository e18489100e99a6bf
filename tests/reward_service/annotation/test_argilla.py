import json
import uuid
from typing import Any

import pytest

from reward_proto.feedback import SpanError
from reward_service.annotation.annotation import Annotation
from reward_service.annotation.argilla import read_argilla, write_argilla
from reward_service.annotation.offsets import Offsets
from reward_service.annotation.store import Kept
from reward_service.annotation.task import Task

USER = "9f0d8a1c-3a55-4c3e-9a53-0d1c3b7f0e11"


def record(**changes: Any) -> list[dict[str, Any]]:
    """A record as `dataset.records.to_json` of argilla 2.8 writes it."""
    made = {
        "id": "r1",
        "fields": {"question": "q", "response": "Some text yeah 🚀 rocket"},
        "metadata": {},
        "suggestions": {},
        "responses": {},
        "vectors": {},
        "status": "completed",
        "_server_id": None,
    }
    return [{**made, **changes}]


def without_explanations(annotation: Annotation) -> Annotation:
    errors = [error.model_copy(update={"explanation": ""}) for error in annotation.feedback.errors]
    return annotation.model_copy(update={"feedback": annotation.feedback.model_copy(update={"errors": errors})})


@pytest.mark.parametrize("counted", Offsets)
def test_there_and_back(task: Task, annotation: Annotation, counted: Offsets) -> None:
    other = Task.of("another", [], ["x"])
    written = write_argilla([task, other], [(task, Kept("Zoë", annotation, True, 1))], counted)
    first, second = read_argilla(json.loads(json.dumps(written)), counted)
    assert first.task == task
    assert first.annotations == {"Zoë": without_explanations(annotation)}
    assert (second.task, second.annotations) == (other, {})


def test_a_record_is_what_argilla_reads(task: Task, annotation: Annotation) -> None:
    (written,) = write_argilla([task], [(task, Kept("Zoë", annotation, True, 1))])
    assert written.keys() == record()[0].keys()
    assert all(isinstance(text, str) for text in written["fields"].values())
    assert written["fields"].keys() == {"question", "response", "response_2", "response_3", "passages"}
    for responses in written["responses"].values():
        assert [uuid.UUID(one["user_id"]).version for one in responses] == [5]
    errors = written["responses"]["error"][0]["value"]
    assert errors[1] == {"label": "Unverifiable", "start": 32, "end": 39}, "UTF-16 units"
    assert written["responses"]["preference_2_3"][0]["value"] == "second"
    assert "preference_1_4" not in written["responses"]


def test_its_page_counts_utf16() -> None:
    # The text of its issue 5729, `rocket` selected on its page: the emoji counts two.
    span = {"label": "Irrelevant", "start": 18, "end": 24}
    content = record(responses={"error": [{"value": [span], "user_id": USER}]})
    (read,) = read_argilla(content)
    assert read.annotations[f"argilla-{USER}"].feedback.errors == [
        SpanError(error_type="Irrelevant", start=17, end=23),
    ]
    with pytest.raises(ValueError, match=r"record 0: .*outside the text"):
        read_argilla(content, Offsets.CODE_POINTS)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({}, "list of records"),
        ([{"fields": {}}], "record 0"),
        (record(responses={"stars": [{"value": 5, "user_id": USER}]}), "'stars'"),
        (record(responses={"error": [{"value": [{"label": "x", "start": 0, "end": 16}], "user_id": USER}]}), "inside"),
    ],
)
def test_faults_name_the_record(content: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read_argilla(content)
