"""One input for several heads, each with separators of its own."""

from hypothesis import given as given_texts
from hypothesis import strategies as st

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.core.encode import InputEncoder
from reward_service.core.segment import segment_text
from reward_service.domain import Encoded, Readout, Span
from tests.reward_service.core.word_inputs import BERT, SPANS, bert, item, span_spec, tokens_of

SENTENCES = (Span(0, 14),)
KINDS = (ModelKind.TOKEN_CLASSIFICATION, ModelKind.TOKEN_CLASSIFICATION, ModelKind.SEQUENCE_REGRESSION)


def positions_of(encoded: Encoded) -> list[list[int]]:
    return [read.positions.tolist() for read in encoded.reads]


def test_heads_share_one_input_and_read_their_own_separators() -> None:
    tokenizer = bert()
    encoded = InputEncoder(tokenizer, span_spec(kinds=KINDS)).encode(item(), (SPANS, SENTENCES, SENTENCES))
    assert tokens_of(tokenizer, encoded.input_ids) == (
        "[CLS] q : one ctx : two three four a : [SEP] one two . [SEP] three [SEP]"
    )
    assert positions_of(encoded) == [[11, 15], [11], [0]]
    assert [read.spans for read in encoded.reads] == [SPANS, SENTENCES, SENTENCES]


def test_edges_of_one_head_inside_anothers_segment_cut_it() -> None:
    tokenizer = bert()
    kinds = KINDS[:2]
    given = item("one two three four five")
    first, second = (Span(0, 7), Span(14, 23)), (Span(4, 13),)
    encoded = InputEncoder(tokenizer, span_spec(kinds=kinds, template="a:")).encode(given, (first, second))
    assert tokens_of(tokenizer, encoded.input_ids) == "[CLS] a : [SEP] one [SEP] two three [SEP] four five [SEP]"
    assert positions_of(encoded) == [[3, 8], [5]]


def test_text_in_no_segment_is_left_out_and_blank_pieces_add_nothing() -> None:
    tokenizer = bert()
    given = item("one  two three four")
    first, second = (Span(0, 5), Span(5, 8)), (Span(3, 8), Span(15, 19))
    encoded = InputEncoder(tokenizer, span_spec(kinds=KINDS[:2], template="a:")).encode(given, (first, second))
    assert tokens_of(tokenizer, encoded.input_ids) == "[CLS] a : [SEP] one [SEP] [SEP] two [SEP] four [SEP]"
    assert positions_of(encoded) == [[3, 6], [5, 8]]


def test_a_blank_response_of_several_heads_has_one_separator() -> None:
    tokenizer = bert()
    encoded = InputEncoder(tokenizer, span_spec(kinds=KINDS, template="a:")).encode(item(" "), ((), (), ()))
    assert tokens_of(tokenizer, encoded.input_ids) == "[CLS] a : [SEP] [SEP]"
    assert positions_of(encoded) == [[], [], [0]]
    assert [read.spans for read in encoded.reads] == [(), (), (Span(0, 0),)]


def test_a_model_that_cannot_see_ahead_reads_after_its_segments() -> None:
    tokenizer = bert()
    spec = span_spec(kinds=KINDS, readout=Readout.AFTER, template="a:")
    encoded = InputEncoder(tokenizer, spec).encode(item(), (SPANS, SENTENCES, SENTENCES))
    assert tokens_of(tokenizer, encoded.input_ids) == "[CLS] a : one two . [SEP] three [SEP] [SEP]"
    assert positions_of(encoded) == [[6, 8], [8], [9]]


@given_texts(st.text(alphabet="ab .\n", max_size=30), st.sampled_from(Readout), st.data())
def test_every_read_out_is_a_separator_beside_its_segment(text: str, readout: Readout, data: st.DataObject) -> None:
    tokenizer = bert()
    tokenizer.add_tokens(["a", "b"])
    kinds = KINDS[:2]
    edges = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    own = tuple(Span(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False) if text[a:b].strip())
    spans = (own, segment_text(text, Granularity.SENTENCE))
    if not any(spans):
        return
    encoded = InputEncoder(tokenizer, span_spec(kinds=kinds, template="", readout=readout)).encode(item(text), spans)
    for read, given_spans in zip(encoded.reads, spans, strict=True):
        assert read.spans == given_spans
        assert len(set(read.positions.tolist())) == len(given_spans)
        assert (encoded.input_ids[read.positions] == BERT.index("[SEP]")).all()
    distinct = {span.start if readout is Readout.BEFORE else span.end for head in spans for span in head}
    assert (encoded.input_ids == BERT.index("[SEP]")).sum() == len(distinct) + 1  # and the final one
