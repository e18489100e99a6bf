import pytest

from reward_proto.models import ModelKind
from reward_service.core import encode
from reward_service.core.encode import InputEncoder
from reward_service.domain import Pooling, Readout, Span, TextItem
from reward_service.errors import InvalidRequestError, MissingFieldError, TooLongError
from tests.reward_service.core.word_inputs import SPANS, bert, item, span_spec, tokens_of, word_tokenizer


def test_a_separator_stands_before_each_segment_and_is_read() -> None:
    tokenizer = bert()
    encoded = InputEncoder(tokenizer, span_spec()).encode(item(), (SPANS,))
    assert tokens_of(tokenizer, encoded.input_ids) == (
        "[CLS] q : one ctx : two three four a : [SEP] one two . [SEP] three [SEP]"
    )
    assert encoded.reads[0].positions.tolist() == [11, 15]
    assert encoded.reads[0].spans == SPANS
    assert encoded.truncated_tokens == 0
    assert encoded.input_ids.dtype == encoded.reads[0].positions.dtype == "int64"


def test_a_sequence_model_has_the_same_input_and_no_read_out() -> None:
    tokenizer = bert()
    spec = span_spec(kinds=(ModelKind.SEQUENCE_REGRESSION,))
    encoded = InputEncoder(tokenizer, spec).encode(item(), ((Span(0, 14),),))
    assert tokens_of(tokenizer, encoded.input_ids).endswith("a : [SEP] one two . three [SEP]")
    assert encoded.reads[0].positions.tolist() == []
    assert encoded.reads[0].spans == (Span(0, 14),)


@pytest.mark.parametrize(
    ("readout", "body", "first", "width"),
    [
        (Readout.BEFORE, "[SEP] one two . [SEP] three [SEP]", [11, 15], [4, 2]),
        (Readout.AFTER, "one two . [SEP] three [SEP] [SEP]", [11, 15], [4, 2]),
    ],
)
def test_a_mean_is_over_a_segments_tokens_and_its_separator(
    readout: Readout, body: str, first: list[int], width: list[int]
) -> None:
    tokenizer = bert()
    spec = span_spec(readout=readout, poolings=(Pooling.MEAN,))
    encoded = InputEncoder(tokenizer, spec).encode(item(), (SPANS,))
    (read,) = encoded.reads
    assert tokens_of(tokenizer, encoded.input_ids[11:]) == body
    assert read.widths is not None
    assert (read.positions.tolist(), read.widths.tolist()) == (first, width)
    assert read.divisors is read.widths


def test_a_mean_over_a_whole_response_spans_the_finer_separators() -> None:
    kinds = (ModelKind.TOKEN_CLASSIFICATION, ModelKind.SEQUENCE_REGRESSION)
    # [CLS] a : [SEP] one two . [SEP] three [SEP]
    for pooling, divisor in ((Pooling.MEAN, 6), (Pooling.SUM, 64)):
        spec = span_spec(template="a:", kinds=kinds, poolings=(Pooling.SEPARATOR, pooling))
        spans, whole = InputEncoder(bert(), spec).encode(item(), (SPANS, (Span(0, 14),))).reads
        assert (spans.positions.tolist(), spans.widths) == ([3, 7], None)
        assert (whole.positions.tolist(), whole.widths, whole.divisors) == ([3], [6], [divisor])


def test_a_mean_over_a_blank_response_is_its_separator() -> None:
    spec = span_spec(template="a:", kinds=(ModelKind.SEQUENCE_REGRESSION,), poolings=(Pooling.MEAN,))
    (read,) = InputEncoder(bert(), spec).encode(item(" "), ((),)).reads
    assert (read.spans, read.positions.tolist(), read.widths) == ((Span(0, 0),), [3], [1])
    (nothing,) = InputEncoder(bert(), span_spec(poolings=(Pooling.MEAN,))).encode(item(" "), ((),)).reads
    assert (nothing.positions.tolist(), nothing.spans) == ([], ())


def test_a_blank_response() -> None:
    tokenizer = bert()
    blank = item(" ")
    spans = InputEncoder(tokenizer, span_spec()).encode(blank, ((),))
    assert (spans.reads[0].spans, spans.reads[0].positions.tolist()) == ((), [])
    whole = InputEncoder(bert(), span_spec(kinds=(ModelKind.SEQUENCE_REGRESSION,))).encode(blank, ((),))
    assert whole.reads[0].spans == (Span(0, 0),)
    assert tokens_of(tokenizer, whole.input_ids).endswith("a : [SEP] [SEP]")


@pytest.mark.parametrize("spans", [SPANS, ()])
def test_a_sequence_model_refuses_other_than_one_segment(spans: tuple[Span, ...]) -> None:
    with pytest.raises(InvalidRequestError, match="one segment"):
        InputEncoder(bert(), span_spec(kinds=(ModelKind.SEQUENCE_REGRESSION,))).encode(item(), (spans,))


@pytest.mark.parametrize(
    ("special", "single", "ends", "expected"),
    [
        (["<pad>", "<unk>", "<s>", "</s>"], "<s> $A </s>", ["<s>", "</s>"], "<s> a : </s> one </s>"),
        (["<pad>", "<unk>", "</s>"], "$A </s>", ["</s>"], "a : </s> one </s>"),
        (["<pad>", "<unk>", "<sep>", "<cls>"], "$A <sep> <cls>", ["<sep>", "<cls>"], "a : <sep> one <sep> <cls>"),
        (["<|endoftext|>", "<unk>"], "", [], "a : <|endoftext|> one"),
    ],
)
def test_the_separator_is_the_tokenizers_own(special: list[str], single: str, ends: list[str], expected: str) -> None:
    tokenizer = word_tokenizer(special, single, ends)
    encoder = InputEncoder(tokenizer, span_spec(template="a:"))
    encoded = encoder.encode(item("one"), ((Span(0, 3),),))
    assert tokens_of(tokenizer, encoded.input_ids) == expected
    # The first special token of each is its pad; GPT-2 has none and uses its end token.
    assert encoder.pad_id == 0


def test_a_tokenizer_without_any_separator_is_refused() -> None:
    with pytest.raises(ValueError, match="separator"):
        InputEncoder(word_tokenizer(["<x>", "<unk>"], "", []), span_spec())


@pytest.mark.parametrize("place", ["response", "q", "prompt"])
def test_special_tokens_in_a_text_stay_text(place: str) -> None:
    tokenizer = bert()
    texts = {"response": "one", "q": "one", "prompt": "one", place: "one [SEP] [CLS] [PAD] two"}
    encoder = InputEncoder(tokenizer, span_spec(template="q: {q} {prompt} a:"))
    response = texts["response"]
    given = TextItem(texts["prompt"], response, {"q": texts["q"]})
    encoded = encoder.encode(given, ((Span(0, len(response)),),))
    assert tokens_of(tokenizer, encoded.input_ids).split().count("[SEP]") == 2
    assert 0 not in encoded.input_ids.tolist()
    assert encoded.input_ids[encoded.reads[0].positions[0]] == tokenizer.token_to_id("[SEP]")


def test_the_prompt_is_always_there_and_a_field_cannot_replace_it() -> None:
    tokenizer = bert()
    encoder = InputEncoder(tokenizer, span_spec(template="{prompt}"))
    encoded = encoder.encode(TextItem("one", "two", {"prompt": "six"}), ((Span(0, 3),),))
    assert tokens_of(tokenizer, encoded.input_ids) == "[CLS] one [SEP] two [SEP]"


def test_a_missing_field_is_named() -> None:
    with pytest.raises(MissingFieldError, match="'ctx'"):
        InputEncoder(bert(), span_spec()).encode(TextItem("", "one", {"q": "one"}), ((Span(0, 3),),))


@pytest.mark.parametrize("template", ["", "{response}"])
def test_an_input_without_a_single_token_is_refused(template: str) -> None:
    # A decoder's tokenizer, which puts nothing around an input.
    tokenizer = word_tokenizer(["<pad>", "<unk>", "<|endoftext|>"], "$A", [])
    encoder = InputEncoder(tokenizer, span_spec(template=template, kinds=(ModelKind.SEQUENCE_REGRESSION,)))
    assert encoder.encode(TextItem("", "one"), ((Span(0, 3),),)).length_tokens == 1
    for blank in ("", " \n"):
        with pytest.raises(InvalidRequestError, match="no token"):
            encoder.encode(TextItem("", blank), ((),))


def test_too_long_is_an_error_with_the_figures() -> None:
    # The whole input has 18 tokens.
    InputEncoder(bert(), span_spec(max_tokens=18)).encode(item(), (SPANS,))
    with pytest.raises(TooLongError, match="18 tokens, the model takes 17"):
        InputEncoder(bert(), span_spec(max_tokens=17)).encode(item(), (SPANS,))


def test_the_cut_field_loses_its_end() -> None:
    tokenizer = bert()
    encoded = InputEncoder(tokenizer, span_spec(max_tokens=16, cut_field="ctx")).encode(item(), (SPANS,))
    assert tokens_of(tokenizer, encoded.input_ids) == "[CLS] q : one ctx : two a : [SEP] one two . [SEP] three [SEP]"
    assert encoded.truncated_tokens == 2
    assert encoded.reads[0].positions.tolist() == [9, 13]


def test_cutting_all_of_the_field_may_not_be_enough() -> None:
    encoder = InputEncoder(bert(), span_spec(max_tokens=15, cut_field="ctx"))
    assert encoder.encode(item(), (SPANS,)).truncated_tokens == 3
    with pytest.raises(TooLongError, match="'ctx' is not enough"):
        InputEncoder(bert(), span_spec(max_tokens=14, cut_field="ctx")).encode(item(), (SPANS,))


def test_the_same_words_elsewhere_are_not_cut() -> None:
    tokenizer = bert()
    encoder = InputEncoder(tokenizer, span_spec(template="{ctx} q {q} {prompt}", max_tokens=10, cut_field="q"))
    given = TextItem("two one", "four", {"ctx": "one two", "q": "one two three"})
    encoded = encoder.encode(given, ((Span(0, 4),),))
    assert tokens_of(tokenizer, encoded.input_ids) == "[CLS] one two q one two one [SEP] four [SEP]"
    assert encoded.truncated_tokens == 2


def test_a_cached_prefix_and_a_long_one_encode_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    first = InputEncoder(bert(), span_spec())
    again = [first.encode(item(response), ((Span(0, 3),),)).input_ids.tolist() for response in ("one", "two")]
    monkeypatch.setattr(encode, "MAX_CACHED_CHARS", 0)
    uncached = InputEncoder(bert(), span_spec())
    assert again == [
        uncached.encode(item(response), ((Span(0, 3),),)).input_ids.tolist() for response in ("one", "two")
    ]


def test_settings_in_the_tokenizer_file_do_not_cut_or_pad() -> None:
    tokenizer = bert()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=40)
    encoded = InputEncoder(tokenizer, span_spec()).encode(item(), (SPANS,))
    assert encoded.length_tokens == 18


@pytest.mark.parametrize("place", ["response", "q"])
def test_lone_surrogates_are_refused(place: str) -> None:
    texts = {"response": "one", "q": "one", place: "o\ud800e"}
    given = TextItem("", texts["response"], {"q": texts["q"], "ctx": ""})
    with pytest.raises(InvalidRequestError, match=f"'{place}' is not valid Unicode at character 1"):
        InputEncoder(bert(), span_spec()).encode(given, ((Span(0, 3),),))


@pytest.mark.parametrize("template", ["{q} {q}", "{ctx}"])
def test_the_cut_field_stands_in_the_template_once(template: str) -> None:
    with pytest.raises(ValueError, match="exactly once"):
        InputEncoder(bert(), span_spec(template=template, cut_field="q"))


@pytest.mark.parametrize("readout", list(Readout))
def test_a_sequence_model_without_a_template_reads_the_bare_text(readout: Readout) -> None:
    tokenizer = bert()
    spec = span_spec(kinds=(ModelKind.SEQUENCE_CLASSIFICATION,), template="", readout=readout)
    encoded = InputEncoder(tokenizer, spec).encode(item(), ((Span(0, 14),),))
    assert encoded.input_ids.tolist() == tokenizer.encode("one two. three").ids
    blank = InputEncoder(tokenizer, spec).encode(item(" "), ((),))
    assert blank.input_ids.tolist() == tokenizer.encode("").ids


def test_a_span_model_without_a_template_keeps_its_separators() -> None:
    tokenizer = bert()
    encoded = InputEncoder(tokenizer, span_spec(template="")).encode(item(), (SPANS,))
    assert tokens_of(tokenizer, encoded.input_ids) == "[CLS] [SEP] one two . [SEP] three [SEP]"
