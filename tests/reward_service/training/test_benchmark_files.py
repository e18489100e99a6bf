import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reward_service.errors import ConfigError
from reward_service.training.benchmark_files import read_preferences, read_steps
from reward_service.training.data_files import DataFile

PREFERENCES = [
    {"prompt": "p", "chosen": "good", "rejected": "bad", "subset": "chat", "id": 1},
    {"prompt": "q", "chosen": ["a", "b"], "rejected": ["c"], "subset": None, "strength": 2.5},
]
STEPS = [
    {"prompt": "p", "steps": ["one", "two"], "labels": [True, False], "subset": "math"},
    {"prompt": "q", "steps": ["one", "two", "three"], "labels": [1, None, 0]},
]


def written(path: Path, rows: list[Any]) -> list[DataFile]:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    return [DataFile(path)]


def test_preferences_of_one_or_several_responses(tmp_path: Path) -> None:
    first, second = read_preferences(written(tmp_path / "a.jsonl", PREFERENCES)).preferences
    assert (first.chosen, first.rejected, first.asked.subset, first.strength) == (("good",), ("bad",), "chat", None)
    assert (second.chosen, second.rejected, second.asked.subset, second.strength) == (("a", "b"), ("c",), "all", 2.5)
    assert first.asked.fields == {"question": "p"}, "a template's {question} is the prompt where nobody says otherwise"
    row = {**PREFERENCES[0], "fields": {"question": "x", "context": "y"}}
    (told,) = read_preferences(written(tmp_path / "b.jsonl", [row])).preferences
    assert told.asked.fields == {"question": "x", "context": "y"}


def test_parquet_is_read_alike(tmp_path: Path) -> None:
    (row,) = read_preferences(written(tmp_path / "a.parquet", PREFERENCES[:1])).preferences
    assert (row.chosen, row.asked.subset) == (("good",), "chat")
    (steps,) = read_steps(written(tmp_path / "b.parquet", STEPS[:1])).steps
    assert (steps.steps, steps.labels) == (("one", "two"), (True, False))


def test_steps_with_labels_in_each_form(tmp_path: Path) -> None:
    rows = [
        *STEPS,
        {"prompt": "p", "completions": ["one"], "labels": [False]},
        {"problem": "p", "steps": ["one", "two", "three"], "label": 1},
        {"problem": "p", "steps": ["one", "two"], "label": -1},
    ]
    found = read_steps(written(tmp_path / "a.jsonl", rows)).steps
    assert [row.labels for row in found] == [
        (True, False),
        (True, None, False),
        (False,),
        (True, False, None),
        (True, True),
    ]
    assert found[3].asked.prompt == "p"


def test_slices_are_rows(tmp_path: Path) -> None:
    (file,) = written(tmp_path / "a.jsonl", PREFERENCES)
    (row,) = read_preferences([DataFile(file.path, 1, None)]).preferences
    assert row.asked.prompt == "q"
    assert row.asked.place.endswith("a.jsonl: row 1")


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([{"prompt": "p", "chosen": "x"}], "row 0: rejected"),
        ([{"prompt": "p", "chosen": [], "rejected": "x"}], "a response each"),
        ([PREFERENCES[0], 3], "row 1"),
        ([], "holds no row"),
    ],
)
def test_faults_of_preferences(rows: list[Any], fault: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(fault)):
        read_preferences(written(tmp_path / "a.jsonl", rows))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"labels": [True]}, "1 labels for 2 steps"),
        ({"labels": None}, "needs labels"),
        ({"label": 1}, "needs labels"),
        ({"labels": None, "label": 2}, "label 2 is no step of 2"),
        ({"labels": [-1, 1]}, "labels.0"),
        ({"steps": []}, "steps"),
        ({"steps": ["one", " "]}, "blank"),
    ],
)
def test_faults_of_steps(change: dict[str, Any], fault: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(fault)):
        read_steps(written(tmp_path / "a.jsonl", [{**STEPS[0], **change}]))


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("{")
    (tmp_path / "bad.parquet").write_text("{")
    for name in ("bad.jsonl", "bad.parquet", "no.jsonl"):
        with pytest.raises(ConfigError, match=re.escape(name)):
            read_preferences([DataFile(tmp_path / name)])
