import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.core.encode import InputEncoder, InputSpec
from reward_service.errors import ConfigError
from reward_service.training.dataset import (
    build_pair_examples,
    build_span_examples,
    read_feedback,
    render_context,
    text_items,
)
from reward_service.training.labels import LABELS, SpanRule

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


def encoder_of(encoder_dir: Path, kind: ModelKind, max_tokens: int = 96) -> InputEncoder:
    tokenizer = Tokenizer.from_file(str(encoder_dir / "tokenizer.json"))
    return InputEncoder(tokenizer, InputSpec("question: {question} answer:", (kind,), max_tokens))


def test_files_are_read_in_order(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a", [content(question="1"), content(question="2")]), write(tmp_path / "b", [content()])]
    assert [example.question for example in read_feedback(paths)] == ["1", "2", "What?"]


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
    with pytest.raises(ConfigError) as raised:
        read_feedback([write(tmp_path / "bad.json", examples)])
    assert raised.value.faults == [
        "example 1: error span [3, 99) is outside prediction 1 (32 characters)",
        "example 2: missing-info names passage 2 of 1",
        "example 2: missing-info names sentence 2 of passage 1, which has 1",
        "example 3: preference must be six numbers of 0, 1, 2, got [1, 2]",
        "example 4: passage 1 is empty; its title comes first",
    ]
    assert "bad.json" in str(raised.value)


def test_malformed_examples_are_told_together(tmp_path: Path) -> None:
    examples = [content(), {"question": 3}, content(gold=None)]
    with pytest.raises(ConfigError) as raised:
        read_feedback([write(tmp_path / "bad.json", examples)])
    faults = raised.value.faults
    assert any(fault.startswith("example 1.question:") for fault in faults)
    assert any(fault.startswith("example 1.prediction 1:") for fault in faults)
    assert any(fault.startswith("example 2.gold:") for fault in faults)


def test_a_missing_file_and_broken_json_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.json"):
        read_feedback([tmp_path / "absent.json"])
    (tmp_path / "broken.json").write_text("[{")
    with pytest.raises(ConfigError, match="Invalid JSON"):
        read_feedback([tmp_path / "broken.json"])


def test_the_context_is_a_line_a_passage() -> None:
    passages = [["Bloom", "Bloom\n\nBloom is an album.", "It is  pop."], ["Troye", "Troye sings.\nWell."], ["Alone"]]
    assert render_context(passages) == "Bloom Bloom is an album. It is pop.\nTroye Troye sings. Well.\nAlone"
    assert render_context([]) == ""


def test_the_four_predictions_get_the_same_fields(tmp_path: Path) -> None:
    (example,) = read_feedback([write(tmp_path / "a", [content()])])
    items = text_items(example)
    assert [item.response for item in items] == ["The colour is red. Nobody knows.", "b", "", "d"]
    assert items[0].fields == items[3].fields == {"question": "What?", "context": "thing The thing is here."}


def test_span_examples_carry_labels_for_each_read_out(tmp_path: Path, encoder_dir: Path) -> None:
    error = {"error type": "Irrelevant", "start": 19, "end": 31}
    examples = read_feedback(
        [write(tmp_path / "a", [content(feedback={"errors": [error]}), content(**{"prediction 1": " "})])]
    )
    encoder = encoder_of(encoder_dir, ModelKind.TOKEN_CLASSIFICATION)
    rule = SpanRule(frozenset({"Irrelevant"}))
    built = build_span_examples(examples, encoder, Granularity.SENTENCE, rule)
    # The blank answer has no segment to learn from.
    assert len(built) == 1
    assert built[0].labels.tolist() == [LABELS.index("ok"), LABELS.index("error")]
    separators = built[0].encoded.input_ids[built[0].encoded.reads[0].positions]
    assert separators.tolist() == [encoder.separator_id] * 2


def test_pair_examples_hold_all_four_predictions(tmp_path: Path, encoder_dir: Path) -> None:
    examples = read_feedback([write(tmp_path / "a", [content()])])
    encoder = encoder_of(encoder_dir, ModelKind.SEQUENCE_REGRESSION)
    (built,) = build_pair_examples(examples, encoder, [((0, 2),)])
    assert len(built.encoded) == 4
    assert built.pairs == ((0, 2),)


@pytest.mark.parametrize("kind", [ModelKind.TOKEN_CLASSIFICATION, ModelKind.SEQUENCE_REGRESSION])
def test_inputs_that_are_too_long_are_told_together(tmp_path: Path, encoder_dir: Path, kind: ModelKind) -> None:
    short = {f"prediction {number}": "red" for number in range(1, 5)}
    examples = read_feedback([write(tmp_path / "a", [content(), content(**short), content()])])
    encoder = encoder_of(encoder_dir, kind, max_tokens=12)
    build = {
        ModelKind.TOKEN_CLASSIFICATION: lambda: build_span_examples(
            examples, encoder, Granularity.SENTENCE, SpanRule(frozenset())
        ),
        ModelKind.SEQUENCE_REGRESSION: lambda: build_pair_examples(examples, encoder, [(), (), ()]),
    }[kind]
    with pytest.raises(ConfigError) as raised:
        build()
    assert [fault.split(":")[0] for fault in raised.value.faults] == ["example 0", "example 2"]


@pytest.mark.skipif(not REAL_FILE.exists(), reason="QA-Feedback's own file is not here")
def test_the_released_file_reads_whole() -> None:
    examples = read_feedback([REAL_FILE])
    assert len(examples) == 350
    # Its ids of missing sentences all exist when passages count from 1 and titles are entry 0.
    assert sum(len(missing.sentence_id) for e in examples for missing in e.feedback.missing_info) == 566
