import json
from pathlib import Path

import pytest

from reward_service.bench.texts import read_items
from reward_service.errors import ConfigError
from reward_service.training.data_files import DataFile


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def test_jsonl_needs_no_marks(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        {"prompt": "p", "response": "One.", "fields": {"question": "Who?"}, "policy": 7},
        "",
        {"chosen": "Two.", "rejected": "Three."},
        {"response": "", "spans": []},
    )
    items = read_items("jsonl", [DataFile(path)])
    assert [(item.prompt, item.response, item.fields) for item in items] == [
        ("p", "One.", {"question": "Who?"}),
        ("", "Two.", {}),
        ("", "Three.", {}),
        ("", "", {}),
    ]
    assert [item.response for item in read_items("jsonl", [DataFile(path, 1, 2)])] == ["Two.", "Three."]


def test_qa_feedback_gives_all_four_predictions(tmp_path: Path) -> None:
    example = {
        "question": "Who?",
        "passages": [["Title", "A sentence."]],
        **{f"prediction {number}": f"Answer {number}." for number in (1, 2, 3, 4)},
        "feedback": {"errors": [], "missing-info": []},
    }
    items = read_items("qa_feedback", [DataFile(write(tmp_path / "a.json", [example, example]))])
    assert [item.response for item in items] == ["Answer 1.", "Answer 2.", "Answer 3.", "Answer 4."] * 2
    assert items[0].fields == {"question": "Who?", "context": "Title A sentence."}


def test_every_fault_is_told_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"response": "Good."}, "{", {"prompt": "p"}, {"response": 7}, "[]")
    with pytest.raises(ConfigError) as caught:
        read_items("jsonl", [DataFile(path), DataFile(tmp_path / "none.jsonl")])
    told = str(caught.value)
    assert "a.jsonl:1:" not in told
    for place in ("a.jsonl:2: not JSON", "a.jsonl:3:", "a.jsonl:4:", "a.jsonl:5:", "none.jsonl"):
        assert place in told


def test_a_file_without_a_response_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no response"):
        read_items("jsonl", [DataFile(write(tmp_path / "a.jsonl", ""))])
