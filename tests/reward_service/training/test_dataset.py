from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from reward_proto.feedback import SpanError
from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.core.encode import InputEncoder, InputSpec
from reward_service.domain import TextItem
from reward_service.errors import ConfigError
from reward_service.training.dataset import Inputs, build_pair_examples, build_span_examples
from reward_service.training.feedback import MAX_FAULTS_TOLD, PairRow, SpanRow
from reward_service.training.labels import LABELS, SpanRule

QUESTION = {"question": "What?"}
RULE = SpanRule(frozenset({"Irrelevant"}))


def inputs_of(encoder_dir: Path, *heads: tuple[ModelKind, Granularity], max_tokens: int = 96) -> Inputs:
    tokenizer = Tokenizer.from_file(str(encoder_dir / "tokenizer.json"))
    spec = InputSpec("question: {question} answer:", tuple(kind for kind, _ in heads), max_tokens)
    return Inputs(InputEncoder(tokenizer, spec), tuple(granularity for _, granularity in heads))


SPANS = (ModelKind.TOKEN_CLASSIFICATION, Granularity.SENTENCE)
WHOLE = (ModelKind.SEQUENCE_REGRESSION, Granularity.SEQUENCE)


def row(text: str, *errors: SpanError, index: int = 0) -> SpanRow:
    return SpanRow(f"a.jsonl:{index}", index, TextItem("", text, QUESTION), errors)


def test_span_examples_carry_labels_for_each_read_out(encoder_dir: Path) -> None:
    inputs = inputs_of(encoder_dir, SPANS)
    error = SpanError(error_type="Irrelevant", start=19, end=31)
    rows = [row("The colour is red. Nobody knows.", error), row(" ")]
    # The blank answer has no segment to learn from.
    (built,) = build_span_examples(rows, inputs, RULE)
    assert built.row is rows[0]
    assert built.labels.tolist() == [LABELS.index("ok"), LABELS.index("error")]
    separators = built.encoded.input_ids[built.encoded.reads[0].positions]
    assert separators.tolist() == [inputs.encoder.separator_id] * 2


def test_each_head_labels_its_own_segments(encoder_dir: Path) -> None:
    paragraphs = (ModelKind.TOKEN_CLASSIFICATION, Granularity.PARAGRAPH)
    inputs = inputs_of(encoder_dir, SPANS, paragraphs)
    error = SpanError(error_type="Irrelevant", start=19, end=31)
    rows = [row("The colour is red. Nobody knows.", error)]
    (sentences,) = build_span_examples(rows, inputs, RULE, head=0)
    (whole,) = build_span_examples(rows, inputs, RULE, head=1)
    assert (len(sentences.labels), len(whole.labels)) == (2, 1)
    assert np.array_equal(sentences.encoded.input_ids, whole.encoded.input_ids)


def test_the_language_reaches_the_segmenter(encoder_dir: Path) -> None:
    inputs = inputs_of(encoder_dir, SPANS)
    text = "Das ist z.B. Kunst. Gut."
    by_language = {
        language: build_span_examples([row(text)], Inputs(inputs.encoder, inputs.granularities, language), RULE)
        for language in ("en", "ta")
    }
    spans = {language: built[0].encoded.reads[0].spans for language, built in by_language.items()}
    assert spans["en"] != spans["ta"]


def test_pair_examples_hold_all_responses(encoder_dir: Path) -> None:
    items = tuple(TextItem("", text, QUESTION) for text in ("red", "", "blue"))
    pairs = PairRow("a.jsonl:1", 0, items, ((0, 2),))
    (built,) = build_pair_examples([pairs], inputs_of(encoder_dir, WHOLE))
    assert len(built.encoded) == 3
    assert built.row.pairs == ((0, 2),)


LONG = "The colour is red. Nobody knows much about that here."


def test_inputs_that_are_too_long_are_told_together(encoder_dir: Path) -> None:
    texts = (LONG, "red", LONG)
    spans = inputs_of(encoder_dir, SPANS, max_tokens=12)
    with pytest.raises(ConfigError) as raised:
        build_span_examples([row(text, index=number) for number, text in enumerate(texts)], spans, RULE)
    assert [fault.split(": ")[0] for fault in raised.value.faults] == ["a.jsonl:0", "a.jsonl:2"]
    whole = inputs_of(encoder_dir, WHOLE, max_tokens=12)
    items = [TextItem("", text, QUESTION) for text in texts]
    with pytest.raises(ConfigError) as raised:
        build_pair_examples([PairRow(str(number), number, (item,), ()) for number, item in enumerate(items)], whole)
    assert [fault.split(": ")[0] for fault in raised.value.faults] == ["0", "2"]


def test_a_field_that_a_row_lacks_is_told_with_its_place(encoder_dir: Path) -> None:
    inputs = inputs_of(encoder_dir, SPANS)
    bare = SpanRow("a.jsonl:7", 0, TextItem("", "red", {"query": "What?"}), ())
    with pytest.raises(ConfigError, match=r"a\.jsonl:7: .*'question'"):
        build_span_examples([row("red"), bare], inputs, RULE)


def test_a_flood_of_faults_is_counted(encoder_dir: Path) -> None:
    bare = [SpanRow(f"a.jsonl:{number}", number, TextItem("", "red"), ()) for number in range(MAX_FAULTS_TOLD + 5)]
    with pytest.raises(ConfigError) as raised:
        build_span_examples(bare, inputs_of(encoder_dir, SPANS), RULE)
    assert len(raised.value.faults) == MAX_FAULTS_TOLD + 1
    assert raised.value.faults[-1] == "and 5 more"
