"""`annotations add`, `export` and `agreement`, as a user types them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from reward_service.annotation.annotation import Annotation
from reward_service.annotation.store import AnnotationStore
from reward_service.cli import app

EXAMPLE = {
    "question": "q",
    "passages": [["t", "A sentence."]],
    "prediction 1": "One 👍 two.",
    "prediction 2": "b",
    "feedback": {
        "errors": [{"error type": "Redundant", "explanation": "why", "start": 4, "end": 9}],
        "missing-info": [],
        "corrected-prediction": "",
    },
    "preference": [1, 0, 0, 0, 0, 0],
}


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["annotations", *map(str, arguments)])


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "example.json"
    path.write_text(json.dumps([EXAMPLE]), encoding="utf-8")
    return path


def scored(name: str, probability: float) -> dict[str, Any]:
    segments = [{"start": 0, "end": 1, "score": probability, "label": "ok"}]
    score = {"version": "3fa94c01d2be", "sequence_score": probability, "segments": segments}
    return {"prompt": name, "response": name, "scores": {"relevance": score}}


def test_tasks_are_added_annotated_and_exported(example: Path, tmp_path: Path) -> None:
    config = tmp_path / "service.yaml"
    db = tmp_path / "a.db"
    content = {"store": "x", "models": [{"name": "m"}], "annotate": {"path": str(db)}}
    config.write_text(yaml.safe_dump(content))
    result = call("add", example, "--config", config)
    assert result.stdout == "1 new tasks, 0 known; 0 new annotations\n"
    assert call("add", example, "--db", db, "--annotator", "anna").stdout == "0 new tasks, 1 known; 1 new annotations\n"
    again = call("add", example, "--db", db, "--annotator", "anna")
    assert "1 annotations were there already" in again.stderr
    out = tmp_path / "out.json"
    result = call("export", "--out", out, "--config", config)
    assert result.stdout == "1 annotations of 1 tasks\n"
    (exported,) = json.loads(out.read_text())
    assert exported == {"gold": "", "prediction 3": "", "prediction 4": "", **EXAMPLE}
    told = json.loads(call("agreement", "--config", config).stdout)
    assert (told["tasks"], told["spans"]) == (0, None)


@pytest.mark.parametrize("name", ["label_studio", "argilla"])
def test_other_programs_formats(example: Path, name: str, tmp_path: Path) -> None:
    first, second, out = tmp_path / "a.db", tmp_path / "b.db", tmp_path / "out.json"
    call("add", example, "--db", first, "--annotator", "anna")
    result = call("export", "--out", out, "--db", first, "--format", name)
    assert result.exit_code == 0, result.output
    assert ("no place for explanations" in result.stderr) == (name == "argilla")
    assert call("add", out, "--db", second, "--format", name).stdout == "1 new tasks, 0 known; 1 new annotations\n"
    call("export", "--out", out, "--db", second)
    (error,) = json.loads(out.read_text())[0]["feedback"]["errors"]
    assert (error["start"], error["end"]) == (4, 9)


def test_the_least_sure_are_added_first(tmp_path: Path) -> None:
    path, db = tmp_path / "responses.jsonl", tmp_path / "a.db"
    lines = [scored("sure", 0.99), scored("unsure", 0.52), scored("so so", 0.7), {"response": " "}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = call("add", path, "--db", db, "--format", "responses", "--order", "confidence", "--limit", 2)
    assert result.exit_code == 0, result.output
    assert "1 responses were left out" in result.stderr
    store = AnnotationStore(db)
    assert [task.question for task in store.all_tasks()] == ["unsure", "so so"]
    store.close()
    result = call("add", path, "--db", db, "--format", "responses", "--model", "other")
    assert "other scored nothing; there is relevance" in result.stderr
    assert call("add", path, "--db", db, "--format", "responses", "--model", "relevance").exit_code == 0


def test_drafts_with_undecided_pairs_are_told(example: Path, tmp_path: Path) -> None:
    db, out = tmp_path / "a.db", tmp_path / "out.json"
    source = tmp_path / "more.json"
    source.write_text(json.dumps([{**EXAMPLE, "prediction 3": "c"}]))
    call("add", source, "--db", db)
    store = AnnotationStore(db)
    (task,) = store.all_tasks()
    store.save(task.id, "bob", Annotation(preference=[1, *[None] * 5]), done=False, based_on=0)
    store.close()
    assert call("export", "--out", out, "--db", db).stdout == "0 annotations of 0 tasks\n"
    result = call("export", "--out", out, "--db", db, "--drafts")
    assert "1 drafts have undecided pairs" in result.stderr
    assert json.loads(out.read_text())[0]["preference"] == []


def test_faults_are_told_without_a_trace(example: Path, tmp_path: Path) -> None:
    config = tmp_path / "service.yaml"
    config.write_text(yaml.safe_dump({"store": "x", "models": [{"name": "m"}]}))
    db = tmp_path / "a.db"
    for arguments, fault in (
        (("add", example), "--config SETTINGS or --db FILE"),
        (("add", example, "--config", config), "annotate.path"),
        (("add", tmp_path / "no.json", "--db", db), "No such file"),
        (("add", example, "--db", db, "--order", "confidence"), "of scored responses"),
        (("export", "--out", tmp_path / "o.json", "--db", tmp_path / "no.db"), "no such file"),
    ):
        result = call(*arguments)
        assert (result.exit_code, fault in result.stderr) == (2, True), result.output
    assert not (tmp_path / "no.db").exists()
