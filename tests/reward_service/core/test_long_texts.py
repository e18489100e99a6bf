import pytest

from reward_proto.models import ModelKind
from reward_service.core.encode import InputEncoder, InputSpec
from reward_service.core.long_texts import (
    CUT_CHARS,
    CUT_TOKENS,
    LONG_CHARS,
    check_count,
    check_cuttable,
    check_length,
    check_unicode,
    tokenize,
    tokens_to_cut,
)
from reward_service.domain import Span, TextItem
from reward_service.errors import InvalidRequestError, TooLongError
from tests.reward_service.core.word_inputs import bert, span_spec

WORDS = 500_000
MANY = "one two " * (WORDS // 2)


@pytest.mark.parametrize("words", [3, LONG_CHARS])
def test_short_and_long_texts_have_the_tokens_of_their_words(words: int) -> None:
    tokenizer = bert()
    one = tokenizer.token_to_id("one")
    encoding = tokenize(tokenizer, "one " * words)
    assert encoding.ids == [one] * words
    assert encoding.offsets[-1] == (4 * words - 4, 4 * words - 1)


def test_a_text_is_refused_by_its_beginning() -> None:
    with pytest.raises(TooLongError, match="more than") as raised:
        check_length(bert(), MANY, 100)
    # 4,096 words are in what is read of it.
    assert raised.value.details == {"length_tokens": LONG_CHARS // 4 - CUT_TOKENS, "max_tokens": 100}


def test_what_may_fit_is_not_refused() -> None:
    check_length(bert(), MANY, WORDS)
    check_length(bert(), "one" + " " * 1_000_000 + "two", 2)
    check_count(20, 10)
    with pytest.raises(TooLongError, match="more than 21 tokens, the model takes 10"):
        check_count(21, 10)


@pytest.mark.parametrize("place", ["response", "q"])
@pytest.mark.parametrize("segments", [1, 1000])
def test_no_input_is_tokenized_far_beyond_what_the_model_takes(place: str, segments: int) -> None:
    item = TextItem("", "one", {"q": "one", "ctx": "two"})
    if place == "response":
        item = TextItem("", MANY, item.fields)
        size = len(MANY) // segments
        spans = tuple(Span(begin, begin + size - 1) for begin in range(0, len(MANY), size))
    else:
        item = TextItem("", "one", {"q": MANY, "ctx": "two"})
        spans = (Span(0, 3),)
    with pytest.raises(TooLongError) as raised:
        InputEncoder(bert(), span_spec()).encode(item, (spans,))
    assert raised.value.details["length_tokens"] < WORDS / 10


def test_a_template_of_the_whole_input_is_not_filled_with_what_cannot_fit() -> None:
    spec = span_spec(template="q: {q} a: {response}", kinds=(ModelKind.SEQUENCE_REGRESSION,))
    for item in (TextItem("", MANY, {"q": "one"}), TextItem("", "one", {"q": MANY})):
        with pytest.raises(TooLongError) as raised:
            InputEncoder(bert(), spec).encode(item, ((Span(0, len(item.response)),),))
        assert raised.value.details["length_tokens"] < WORDS / 10


def test_a_long_field_that_may_be_cut_is_cut() -> None:
    encoder = InputEncoder(bert(), span_spec(max_tokens=20, cut_field="ctx"))
    fields = {"q": "one", "ctx": "one " * LONG_CHARS}
    encoded = encoder.encode(TextItem("", "one", fields), ((Span(0, 3),),))
    assert encoded.length_tokens == 20
    # [CLS] q : one ctx : a : [SEP] one [SEP] are 11 tokens.
    assert encoded.truncated_tokens == LONG_CHARS + 11 - 20


CUT = span_spec(max_tokens=20, cut_field="ctx")
CUT_WHOLE = span_spec(
    max_tokens=20,
    cut_field="ctx",
    template="q: {q} ctx: {ctx} a: {response}",
    kinds=(ModelKind.SEQUENCE_REGRESSION,),
)


@pytest.mark.parametrize("spec", [CUT, CUT_WHOLE])
def test_the_longest_field_that_is_cut(spec: InputSpec) -> None:
    encoder = InputEncoder(bert(), spec)
    longest = "one " * (CUT_CHARS // 4)
    encoded = encoder.encode(TextItem("", "one", {"q": "one", "ctx": longest}), ((Span(0, 3),),))
    assert encoded.length_tokens == 20
    assert encoded.truncated_tokens > CUT_CHARS // 4 - 20
    with pytest.raises(TooLongError, match="'ctx' has 262145 characters"):
        encoder.encode(TextItem("", "one", {"q": "one", "ctx": longest + "."}), ((Span(0, 3),),))


def test_a_model_of_long_inputs_may_have_longer_ones_cut() -> None:
    check_cuttable("ctx", 64 * 8192, 8192)
    with pytest.raises(TooLongError):
        check_cuttable("ctx", 64 * 8192 + 1, 8192)


@pytest.mark.parametrize("spec", [CUT, CUT_WHOLE])
def test_what_is_not_cut_is_refused_by_its_beginning_beside_what_is(spec: InputSpec) -> None:
    with pytest.raises(TooLongError, match="more than") as raised:
        InputEncoder(bert(), spec).encode(TextItem("", "one", {"q": MANY, "ctx": "two"}), ((Span(0, 3),),))
    assert raised.value.details["length_tokens"] < WORDS / 10


def test_what_is_over_is_cut_where_it_may() -> None:
    assert [tokens_to_cut(length, 10, 2, "ctx") for length in (1, 10, 12)] == [0, 0, 2]
    with pytest.raises(TooLongError, match=r"13 tokens, the model takes 10, and cutting all of 'ctx' is not enough"):
        tokens_to_cut(13, 10, 2, "ctx")
    with pytest.raises(TooLongError, match=r"11 tokens, the model takes 10$"):
        tokens_to_cut(11, 10, 0, None)
    with pytest.raises(InvalidRequestError, match="no token"):
        tokens_to_cut(0, 10, 0, None)


@pytest.mark.parametrize("text", ["", "ok", "né 🎉"])
def test_texts_are_unicode(text: str) -> None:
    check_unicode("q", text)


def test_lone_surrogates_are_told_with_their_place() -> None:
    with pytest.raises(InvalidRequestError, match="'q' is not valid Unicode at character 1"):
        check_unicode("q", "é\ud800e")
