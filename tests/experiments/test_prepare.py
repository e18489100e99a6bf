"""From the data as published to what the full-size runs read."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from demo.files import read_jsonl
from experiments.prepare import app
from reward_service.training.qa_feedback import render_context

PASSAGES = [["Bloom (album)", "Bloom (album)\n\nBloom is  an album.", "It sold well."], ["Troye", "He sings."]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    row = {"text": "question: Who? context: ...", "question": "Who?", "passages": PASSAGES, "answer": "Troye."}
    for name, rows in {"train_1k": [row], "train": [row, row], "dev": [row | {"answer": ["He.", "Troye."]}]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    for name in ("train_feedback", "dev_feedback"):
        (tmp_path / f"{name}.json").write_text("[]")
    return tmp_path


def test_qa_feedback(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = CliRunner().invoke(app, ["qa", str(source), "--out", str(out)])
    assert ended.exit_code == 0, ended.output
    (demonstration,) = read_jsonl(out / "qa_sft.jsonl")
    assert demonstration["prompt"] == "question: Who? context: ..."
    assert demonstration["response"] == "Troye."
    assert [row["id"] for row in read_jsonl(out / "qa_train.jsonl")] == ["0", "1"]
    (prompt,) = read_jsonl(out / "qa_dev.jsonl")
    assert prompt["fields"] == {"question": "Who?", "context": render_context(PASSAGES)}
    assert read_jsonl(out / "qa_references.jsonl") == [{"id": prompt["id"], "references": ["He.", "Troye."]}]
    assert (out / "train_feedback.json").exists()


def test_toxicity_prompts_are_divided_by_their_text(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": {"text": f"The {n}th time"}}) for n in range(400)]
    divided = []
    for name, order in (("a", lines), ("b", lines[::-1])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(order))
        ended = CliRunner().invoke(app, ["detox", str(tmp_path / f"{name}.jsonl"), "--out", str(tmp_path / name)])
        assert ended.exit_code == 0, ended.output
        splits = [read_jsonl(tmp_path / name / f"detox_{split}.jsonl") for split in ("train", "test")]
        divided.append([{row["prompt"] for row in rows} for rows in splits])
    (train, test), other = divided
    assert [train, test] == other
    assert len(train | test) == 400
    assert not train & test
    assert 20 <= len(test) <= 65


def test_a_line_without_a_prompt_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"prompt": {"text": "One"}}\n{"text": "Two"}\n')
    ended = CliRunner().invoke(app, ["detox", str(tmp_path / "bad.jsonl"), "--out", str(tmp_path)])
    assert ended.exit_code == 2
    assert "bad.jsonl:2" in re.sub(r"[\s│]", "", ended.output)  # the box may break it anywhere
