import json
from pathlib import Path
from typing import Any

import pytest

from reward_service.domain import TextItem
from reward_service.errors import ConfigError
from reward_service.training.data_files import DataFile
from reward_service.training.jsonl import JsonlFeedback, read_jsonl

FIELDS = {"question": "What?"}
MARKED = {
    "prompt": "p",
    "fields": FIELDS,
    "response": "A red one. 🎉!",
    "spans": [{"start": 2, "end": 5, "type": "Bad"}],
}
PAIR = {"prompt": "p", "fields": FIELDS, "chosen": "good", "rejected": "bad"}


def write(path: Path, *lines: Any) -> Path:
    texts = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def read(*paths: Path | str) -> JsonlFeedback:
    return read_jsonl([DataFile.parse(str(path)) for path in paths])


def test_rows_of_both_kinds_in_order(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", MARKED, "", PAIR)
    second = write(tmp_path / "b.jsonl", {"response": "x", "spans": []})
    feedback = read(first, second)
    assert len(feedback) == 3
    assert feedback.error_types == {"Bad"}
    marked, clean = feedback.span_rows()
    assert (marked.place, marked.index, clean.place, clean.index) == (f"{first}:1", 0, f"{second}:1", 2)
    assert marked.item == TextItem("p", "A red one. 🎉!", FIELDS)
    assert [(mark.error_type, mark.start, mark.end) for mark in marked.errors] == [("Bad", 2, 5)]
    assert (clean.item, clean.errors) == (TextItem("", "x"), ())
    (pair,) = feedback.pair_rows("preference", 0.85)
    assert (pair.place, pair.index, pair.pairs) == (f"{first}:3", 1, ((0, 1),))
    assert pair.items == (TextItem("p", "good", FIELDS), TextItem("p", "bad", FIELDS))
    assert [item.response for item in feedback.texts()] == ["A red one. 🎉!", "x", "good", "bad"]


def test_a_text_does_not_beat_itself(tmp_path: Path) -> None:
    (pair,) = read(write(tmp_path / "a.jsonl", {**PAIR, "rejected": "good"})).pair_rows("preference", 0.85)
    assert pair.pairs == ()


def test_coverage_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="coverage needs passages"):
        read(write(tmp_path / "a.jsonl", PAIR)).pair_rows("coverage", 0.85)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "not JSON: Expecting property name"),
        ("[1]", "must be an object, not list"),
        ({**MARKED, "response": 3}, "response: Input should be a valid string"),
        ({"response": "x"}, "spans: Field required"),
        ({**MARKED, "spans": [{"start": 0, "end": 1}]}, "spans.0.type: Field required"),
        (
            {**MARKED, "spans": [{"start": 0, "end": 1.0, "type": "Bad"}]},
            "spans.0.end: Input should be a valid integer",
        ),
        ({**MARKED, "spans": [{"start": 0, "end": 1, "type": ""}]}, "spans.0.type: String should have at least 1"),
        ({**MARKED, "spans": [{"start": 3, "end": 14, "type": "Bad"}]}, r"spans.0: \[3, 14\) is empty or outside"),
        ({**MARKED, "spans": [{"start": 3, "end": 3, "type": "Bad"}]}, r"spans.0: \[3, 3\) is empty or outside"),
        ({**MARKED, "spans": [{"start": -1, "end": 3, "type": "Bad"}]}, r"spans.0: \[-1, 3\) is empty or outside"),
        ({**MARKED, "colour": 1}, "colour: Extra inputs"),
        ({"chosen": "a"}, "rejected: Field required"),
        ({**PAIR, "response": "x"}, "response: Extra inputs"),
        ({**PAIR, "fields": {"question": None}}, "fields.question: Input should be a valid string"),
        ({}, "response: Field required"),
    ],
)
def test_a_fault_names_file_and_line(tmp_path: Path, line: Any, fault: str) -> None:
    path = write(tmp_path / "bad.jsonl", MARKED, "", line)
    with pytest.raises(ConfigError, match=rf"bad\.jsonl:3: {fault}"):
        read(path)


def test_the_last_character_is_inside(tmp_path: Path) -> None:
    whole = {**MARKED, "spans": [{"start": 0, "end": 13, "type": "Bad"}]}  # The emoji is one code point.
    assert len(read(write(tmp_path / "a.jsonl", whole)).spans) == 1


def test_every_fault_of_every_file_is_told_at_once(tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.jsonl", "{", MARKED, {"response": 1, "spans": 2})
    (tmp_path / "latin.jsonl").write_bytes(b'{"response": "\xe9", "spans": []}\n')
    with pytest.raises(ConfigError) as raised:
        read(bad, tmp_path / "absent.jsonl", tmp_path / "latin.jsonl", f"{bad}[9:]")
    places = [fault.removeprefix(f"{tmp_path}/").split(": ")[0] for fault in raised.value.faults]
    assert places == ["bad.jsonl:1", "bad.jsonl:3", "bad.jsonl:3", "absent.jsonl", "latin.jsonl:1", "bad.jsonl"]
    assert "past the file's 3 rows" in raised.value.faults[-1]


def test_a_slice_counts_rows_not_lines_and_leaves_the_others_unread(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "{broken", "", PAIR, MARKED, PAIR)
    feedback = read(f"{path}[1:3]")
    assert [row.place for row in feedback.pairs] == [f"{path}:3"]
    assert [row.place for row in feedback.spans] == [f"{path}:4"]
    assert [row.place for row in read(f"{path}[-1:]").pairs] == [f"{path}:5"]
