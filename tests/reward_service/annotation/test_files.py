import json
from pathlib import Path
from typing import Any

import pytest

from reward_service.annotation.annotation import Annotation
from reward_service.annotation.exchange import Imported
from reward_service.annotation.files import (
    TaskFormat,
    add_imported,
    read_annotations,
    read_responses,
    render,
    undecided_drafts,
)
from reward_service.annotation.scored import ModelScore
from reward_service.annotation.store import AnnotationStore
from reward_service.annotation.task import Task
from reward_service.errors import ConfigError
from reward_service.training.data_files import DataFile
from reward_service.training.qa_feedback import read_qa_feedback


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def filled(store: AnnotationStore, task: Task, annotation: Annotation) -> AnnotationStore:
    """Anna has finished the task, bob has begun."""
    store.add_tasks([task])
    store.save(task.id, "anna", annotation, done=True, based_on=0)
    store.save(task.id, "bob", Annotation(preference=[1, *[None] * 5]), done=False, based_on=0)
    return store


def test_the_training_reads_what_is_exported(filled: AnnotationStore, task: Task, tmp_path: Path) -> None:
    path = written(tmp_path / "out.json", render(filled, TaskFormat.QA_FEEDBACK))
    (example,) = read_qa_feedback([DataFile(path)]).examples
    assert [example.prediction_1[e.start : e.end] for e in example.feedback.errors] == [
        "day.\nIt ended\r\nin",
        "🎉 two.",
    ]
    assert example.question == task.question
    both = json.loads(render(filled, TaskFormat.QA_FEEDBACK, drafts=True))
    assert [one["preference"] for one in both] == [[1, 0, 0, 2, 0, 0], []]
    assert undecided_drafts([(kept, one.annotation) for kept, one in filled.annotated(drafts=True)]) == 1


@pytest.mark.parametrize("data_format", TaskFormat)
def test_what_is_exported_can_be_added_again(
    filled: AnnotationStore, task: Task, data_format: TaskFormat, tmp_path: Path
) -> None:
    path = written(tmp_path / "out.json", render(filled, data_format))
    found = read_annotations(path, data_format, annotator="anna")
    again = AnnotationStore(tmp_path / "again.db")
    assert tuple_of(add_imported(again, found)) == (1, 1, 0)
    assert tuple_of(add_imported(again, found)) == (0, 0, 1)
    ((kept_task, kept),) = again.annotated()
    assert (kept_task, kept.annotator, kept.done) == (task, "anna", True)
    again.close()


def tuple_of(added: Any) -> tuple[int, int, int]:
    return added.tasks, added.annotations, added.kept


def test_an_annotation_with_undecided_pairs_comes_as_a_draft(store: AnnotationStore, task: Task) -> None:
    add_imported(store, [Imported(task, {"anna": Annotation(preference=[1, *[None] * 5])})])
    ((_, kept),) = store.annotated(drafts=True)
    assert not kept.done


def test_tasks_alone_need_little(tmp_path: Path) -> None:
    path = written(tmp_path / "tasks.json", [{"question": "q", "prediction 1": "a"}])
    (found,) = read_annotations(path, TaskFormat.QA_FEEDBACK)
    assert found == Imported(Task.of("q", [], ["a"]), {})


def test_every_fault_of_a_file_is_told(tmp_path: Path) -> None:
    good = {"question": "q", "prediction 1": "a"}
    bad = [{"question": "q"}, {**good, "passages": "x"}, good, {**good, "prediction 1": " "}, 7]
    with pytest.raises(ConfigError) as caught:
        read_annotations(written(tmp_path / "bad.json", bad), TaskFormat.QA_FEEDBACK)
    places = [fault.split(":")[0] for fault in caught.value.faults]
    assert places == ["example 0.prediction 1", "example 1.passages", "example 3", "example 4."]
    for content in ("{", {}, "\x00"):
        with pytest.raises(ConfigError, match=r"worse\.json"):
            read_annotations(written(tmp_path / "worse.json", content), TaskFormat.QA_FEEDBACK)
    with pytest.raises(ConfigError, match=r"no\.json"):
        read_annotations(tmp_path / "no.json", TaskFormat.LABEL_STUDIO)
    with pytest.raises(ConfigError, match="task 0"):
        read_annotations(written(tmp_path / "ls.json", [{}]), TaskFormat.LABEL_STUDIO)


LINE = {
    "id": "q/0",
    "sample": 0,
    "prompt": "p",
    "fields": {"question": "q"},
    "response": "One. Two.",
    "scores": {
        "relevance": {
            "version": "3fa94c01d2be",
            "sequence_score": 0.6,
            "segments": [
                {"start": 0, "end": 4, "score": 0.7, "label": "ok"},
                {"start": 5, "end": 9, "score": 0.5, "label": "ok"},
            ],
        },
        "completeness": {"sequence_score": 1.5, "segments": [{"start": 0, "end": 9, "score": 1.5, "label": None}]},
        "failed": {"segments": None, "sequence_score": None, "error": {"code": "too_long"}},
    },
}


def test_the_clients_responses_are_read_with_their_scores(tmp_path: Path) -> None:
    lines = "".join(json.dumps(line) + "\n" for line in (LINE, {"response": "bare"}))
    first, second = read_responses(written(tmp_path / "responses.jsonl", lines))
    assert (first.prompt, first.fields, first.response) == ("p", {"question": "q"}, "One. Two.")
    assert first.scores == {
        "relevance": ModelScore(0.6, (0.7, 0.5)),
        "completeness": ModelScore(1.5),
        "failed": ModelScore(None),
    }
    assert second.scores == {}
    with pytest.raises(ConfigError, match="line 2: response"):
        read_responses(written(tmp_path / "bad.jsonl", '{"response": ""}\n{"prompt": "x"}\n'))
