import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reward_service.cli import app
from reward_service.errors import ConfigError
from reward_service.training.split import parse_parts, split_feedback


def write_qa(path: Path, questions: list[str]) -> Path:
    rows = [
        {
            "question": question,
            "passages": [["t", "s."]],
            "gold": "é",
            **{f"prediction {i}": f"answer {number}" for i in range(1, 5)},
            "feedback": {"errors": [], "missing-info": [], "corrected-prediction": ""},
            "preference": [],
        }
        for number, question in enumerate(questions)
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def answers(path: Path) -> list[str]:
    return [row["prediction 1"] for row in json.loads(path.read_text(encoding="utf-8"))]


def test_every_row_is_in_one_part_as_it_was(tmp_path: Path) -> None:
    source = write_qa(tmp_path / "all.json", [f"q{i}" for i in range(20)])
    sizes = split_feedback(source, "qa_feedback", {"train": 12, "dev": 3, "test": None}, tmp_path / "parts", seed=0)
    assert sizes == {"train": 12, "dev": 3, "test": 5}
    parts = [json.loads((tmp_path / "parts" / f"{name}.json").read_text(encoding="utf-8")) for name in sizes]
    original = json.loads(source.read_text(encoding="utf-8"))
    together = [row for part in parts for row in part]
    assert sorted(together, key=str) == sorted(original, key=str)
    assert together != original


def test_the_seed_decides(tmp_path: Path) -> None:
    source = write_qa(tmp_path / "all.json", [f"q{i}" for i in range(20)])
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        split_feedback(source, "qa_feedback", {"x": 10, "y": None}, tmp_path / folder, seed)
    assert answers(tmp_path / "a" / "x.json") == answers(tmp_path / "b" / "x.json")
    assert answers(tmp_path / "a" / "x.json") != answers(tmp_path / "c" / "x.json")


def test_the_order_of_the_file_can_be_kept(tmp_path: Path) -> None:
    source = write_qa(tmp_path / "all.json", ["q0", "q1", "q0", "q2", "q3"])
    wanted = ["split", str(source), "--in-order", "--part", "x=2", "--part", "y=rest", "--out", str(tmp_path)]
    assert CliRunner().invoke(app, wanted).exit_code == 0
    assert answers(tmp_path / "x.json") == ["answer 0", "answer 2"]
    assert answers(tmp_path / "y.json") == ["answer 1", "answer 3", "answer 4"]


def test_rows_of_one_question_stay_together(tmp_path: Path) -> None:
    questions = [f"q{i // 3}" for i in range(30)]
    source = write_qa(tmp_path / "all.json", questions)
    sizes = split_feedback(source, "qa_feedback", {"x": 10, "y": None}, tmp_path, seed=0)
    asked = [{row["question"] for row in json.loads((tmp_path / f"{name}.json").read_text())} for name in sizes]
    assert not asked[0] & asked[1]
    assert sizes == {"x": 12, "y": 18}


def test_jsonl_lines_are_kept_to_the_byte(tmp_path: Path) -> None:
    lines = [
        '{"response":  "a\\u2028b", "prompt": "p1", "spans": []}',
        '{"prompt": "p2", "chosen": "x", "rejected": "y"}',
        '{"prompt": "p1", "response": "ü", "spans": []}',
    ]
    source = tmp_path / "all.jsonl"
    source.write_text("\n\n".join(lines), encoding="utf-8")
    split_feedback(source, "jsonl", {"x": 1, "y": None}, tmp_path, seed=0)
    written = [(tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines() for name in ("x", "y")]
    assert sorted(map(sorted, written)) == sorted([sorted([lines[0], lines[2]]), [lines[1]]])


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    source = write_qa(tmp_path / "all.json", ["q"] * 4)
    with pytest.raises(ConfigError, match="4 rows, fewer than the 5"):
        split_feedback(source, "qa_feedback", {"x": 3, "y": 2}, tmp_path, seed=0)
    with pytest.raises(ConfigError, match="too few rows are left for y"):
        split_feedback(source, "qa_feedback", {"x": 2, "y": 2}, tmp_path, seed=0)
    assert not (tmp_path / "x.json").exists()


def test_a_faulty_file_is_told_and_not_divided(tmp_path: Path) -> None:
    source = tmp_path / "all.json"
    source.write_text('[{"question": 1}]')
    with pytest.raises(ConfigError, match=r"all\.json"):
        split_feedback(source, "qa_feedback", {"x": 1, "y": None}, tmp_path, seed=0)


@pytest.mark.parametrize(
    ("texts", "fault"),
    [
        (["train"], "no part"),
        (["train=0", "test=rest"], "no part"),
        (["../x=1", "test=rest"], "no part"),
        (["a=1", "a=2"], "twice"),
        (["a=rest", "b=rest"], "one may take"),
        (["a=1"], "two parts"),
    ],
)
def test_faulty_parts(texts: list[str], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_parts(texts)


def test_the_command(tmp_path: Path) -> None:
    source = write_qa(tmp_path / "all.json", [f"q{i}" for i in range(5)])
    common: list[Any] = ["split", str(source), "--out", str(tmp_path / "parts")]
    result = CliRunner().invoke(app, [*common, "--part", "train=3", "--part", "test=rest"])
    assert (result.exit_code, result.stdout) == (0, "train: 3 rows, test: 2 rows\n")
    bad = CliRunner().invoke(app, [*common, "--part", "train=3"])
    assert bad.exit_code == 2
    assert "two parts" in bad.stderr
