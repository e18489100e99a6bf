import json
from pathlib import Path
from typing import Any

import pytest

from reward_service.errors import ConfigError
from reward_service.training.data_files import DataFile
from reward_service.training.qa_feedback import QaFeedback, read_qa_feedback, render_context, text_items

REAL_FILE = Path(__file__).parents[4] / "shared" / "data" / "qa_feedback_350.json"


def content(**changes: Any) -> dict[str, Any]:
    return {
        "question": "What?",
        "passages": [["thing", "The thing is here."]],
        "gold": "x",
        "prediction 1": "The colour is red. Nobody knows.",
        "prediction 2": "b",
        "prediction 3": "",
        "prediction 4": "d",
        "feedback": {"errors": [], "missing-info": [], "corrected-prediction": ""},
        "preference": [0, 1, 2, 0, 0, 0],
        **changes,
    }


def write(path: Path, examples: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(examples), encoding="utf-8")
    return path


def read(*paths: Path | str) -> QaFeedback:
    return read_qa_feedback([DataFile.parse(str(path)) for path in paths])


def test_files_are_read_in_order(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a", [content(question="1"), content(question="2")]), write(tmp_path / "b", [content()])]
    assert [example.question for example in read(*paths).examples] == ["1", "2", "What?"]


def test_every_fault_of_a_file_is_told_with_its_example(tmp_path: Path) -> None:
    error = {"error type": "Irrelevant", "start": 3, "end": 99}
    missing = [
        {"error type": "Missing-Answer", "passage_id": 2, "sentence_id": [1]},
        {"error type": "Missing-Answer", "passage_id": 1, "sentence_id": [0, 2]},
    ]
    examples = [
        content(),
        content(feedback={"errors": [error]}),
        content(feedback={"missing-info": missing}),
        content(preference=[1, 2]),
        content(passages=[[]]),
    ]
    bad = write(tmp_path / "bad.json", examples)
    with pytest.raises(ConfigError) as raised:
        read(bad)
    assert raised.value.faults == [
        f"{bad}: example 1: error span [3, 99) is outside prediction 1 (32 characters)",
        f"{bad}: example 2: missing-info names passage 2 of 1",
        f"{bad}: example 2: missing-info names sentence 2 of passage 1, which has 1",
        f"{bad}: example 3: preference must be six numbers of 0, 1, 2, got [1, 2]",
        f"{bad}: example 4: passage 1 is empty; its title comes first",
    ]


def test_malformed_examples_are_told_together(tmp_path: Path) -> None:
    examples = [content(), {"question": 3}, content(gold=None)]
    bad = write(tmp_path / "bad.json", examples)
    with pytest.raises(ConfigError) as raised:
        read(bad)
    faults = raised.value.faults
    assert any(fault.startswith(f"{bad}: example 1.question:") for fault in faults)
    assert any(fault.startswith(f"{bad}: example 1.prediction 1:") for fault in faults)
    assert any(fault.startswith(f"{bad}: example 2.gold:") for fault in faults)


def test_a_missing_file_and_broken_json_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.json"):
        read(tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text("[{")
    with pytest.raises(ConfigError, match="Invalid JSON"):
        read(tmp_path / "broken.json")


def test_faults_of_all_files_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("[{")
    with pytest.raises(ConfigError) as raised:
        read(
            tmp_path / "absent.json", tmp_path / "broken.json", write(tmp_path / "bad.json", [content(preference=[3])])
        )
    names = [Path(fault.split(":")[0]).name for fault in raised.value.faults]
    assert names == ["absent.json", "broken.json", "bad.json"]


def test_a_slice_keeps_the_examples_numbers_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [content(question=str(number)) for number in range(4)])
    feedback = read(f"{path}[1:3]")
    assert [example.question for example in feedback.examples] == ["1", "2"]
    rows = feedback.span_rows()
    assert [row.place for row in rows] == [f"{path}: example 1", f"{path}: example 2"]
    assert [row.index for row in rows] == [0, 1]
    with pytest.raises(ConfigError, match=r"slice \[:5\] is past the file's 4 rows"):
        read(f"{path}[:5]")


def test_rows_of_both_kinds(tmp_path: Path) -> None:
    error = {"error type": "Irrelevant", "start": 3, "end": 9}
    feedback = read(write(tmp_path / "a.json", [content(feedback={"errors": [error]})]))
    assert (len(feedback), feedback.error_types) == (1, {"Irrelevant"})
    (span,) = feedback.span_rows()
    assert span.item == text_items(feedback.examples[0])[0]
    assert [(mark.error_type, mark.start, mark.end) for mark in span.errors] == [("Irrelevant", 3, 9)]
    (pair,) = feedback.pair_rows("preference", 0.85)
    assert pair.items == tuple(text_items(feedback.examples[0])) == tuple(feedback.texts())
    assert pair.pairs == ((0, 2), (3, 0))  # content()'s preference: 1v3 the first, 1v4 the second


def test_the_context_is_a_line_a_passage() -> None:
    passages = [["Bloom", "Bloom\n\nBloom is an album.", "It is  pop."], ["Troye", "Troye sings.\nWell."], ["Alone"]]
    assert render_context(passages) == "Bloom Bloom is an album. It is pop.\nTroye Troye sings. Well.\nAlone"
    assert render_context([]) == ""


def test_the_four_predictions_get_the_same_fields(tmp_path: Path) -> None:
    (example,) = read(write(tmp_path / "a", [content()])).examples
    items = text_items(example)
    assert [item.response for item in items] == ["The colour is red. Nobody knows.", "b", "", "d"]
    assert items[0].fields == items[3].fields == {"question": "What?", "context": "thing The thing is here."}


@pytest.mark.skipif(not REAL_FILE.exists(), reason="QA-Feedback's own file is not here")
def test_the_released_file_reads_whole() -> None:
    examples = read(REAL_FILE).examples
    assert len(examples) == 350
    # Its ids of missing sentences all exist when passages count from 1 and titles are entry 0.
    assert sum(len(missing.sentence_id) for e in examples for missing in e.feedback.missing_info) == 566
