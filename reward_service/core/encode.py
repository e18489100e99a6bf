"""Segments to token ids: `prefix <sep> segment <sep> segment ...`, read at the separator before each segment.

Several heads share one input: separators stand wherever one of them begins a segment. A decoder-only model, which
cannot see ahead, has its separators after the segments instead. A sequence model without a template reads the bare
response, as a classifier of plain texts was trained to; one whose template has `{response}` reads that alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from tokenizers import Tokenizer

from reward_proto.models import ModelKind
from reward_service.core.long_texts import (
    check_count,
    check_cuttable,
    check_length,
    check_unicode,
    tokenize,
    tokens_to_cut,
)
from reward_service.core.response_template import RESPONSE_FIELD, ResponseTemplate
from reward_service.core.special_tokens import PADS, SEPARATORS, first_known, special_ids
from reward_service.core.template import PROMPT_FIELD, parse_template
from reward_service.domain import SUM_UNIT_TOKENS, Encoded, Pooling, Read, Readout, Span, TextItem
from reward_service.errors import InvalidRequestError, MissingFieldError

PREFIX_CACHE_SIZE = 512
"""Prefixes whose token ids are kept: the samples of one prompt come close together."""

MAX_CACHED_CHARS = 16_384
"""Longer prefixes are not kept, so that a caller cannot fill the memory with them."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What the encoder must know of a model.

    Attributes:
        template: The input's prefix, with `{field}` for each named input. `{prompt}` is always there. With `{response}`
            it is the whole input.
        kinds: Of the heads, at least one. Span heads read segments. A sequence head whose network reads tokens reads
            the first one (the last one with `Readout.AFTER`), or with another pooling than `SEPARATOR` the response.
        max_tokens: Longest input, special tokens included.
        cut_field: The one field whose end may be cut to fit; too long is an error when absent.
        readout: On which side of its segment a separator stands.
        poolings: What of a segment each of the heads reads; the separator where absent.
    """

    template: str
    kinds: tuple[ModelKind, ...]
    max_tokens: int
    cut_field: str | None = None
    readout: Readout = Readout.BEFORE
    poolings: tuple[Pooling, ...] = ()

    @property
    def heads(self) -> tuple[tuple[ModelKind, Pooling], ...]:
        """Kind and pooling of each head."""
        return tuple(zip(self.kinds, self.poolings or (Pooling.SEPARATOR,) * len(self.kinds), strict=True))

    @property
    def reads_whole(self) -> bool:
        """Whether the network puts out one row of logits for the whole input, and not one for each token."""
        kind, pooling = self.heads[0]
        return len(self.kinds) == 1 and kind is not ModelKind.TOKEN_CLASSIFICATION and pooling is Pooling.SEPARATOR


@dataclass(frozen=True, slots=True)
class _Edges:
    """Where segments lie in a tokenized response, their separators included.

    Attributes:
        first: The first token of the segment that begins at a place of the text.
        stop: One past the last token of the segment that ends at a place of the text.
    """

    first: dict[int, int]
    stop: dict[int, int]


@dataclass(frozen=True, slots=True)
class _Prefix:
    """A tokenized prefix.

    Attributes:
        ids: Without special tokens.
        cut_from: Index of the cut field's first token, and `cut_to` one past its last; equal when nothing can be cut.
    """

    ids: list[int]
    cut_from: int
    cut_to: int


class InputEncoder:
    """Turns segmented responses into one model's inputs. Safe to use from several threads.

    The separator is the token that the tokenizer's post-processor ends an input with (BERT's [SEP], RoBERTa's and
    T5's </s>), or else a separator or end token by its usual name. Padding is the token of a usual name for it, or else
    what the tokenizer is set to pad with, or else the separator.
    """

    def __init__(self, tokenizer: Tokenizer, spec: InputSpec) -> None:
        """Prepare a tokenizer, which the encoder takes over, and parse the template.

        Raises:
            ValueError: The template or `cut_field` is malformed, or the tokenizer has no separator.
        """
        padding = tokenizer.padding
        tokenizer.no_padding()
        tokenizer.no_truncation()
        # Text such as "[SEP]" in a response stays text: it must not add a separator and shift the read-outs.
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._spec = spec
        self._parts = parse_template(spec.template)
        names = [name for _, name in self._parts if name is not None]
        if spec.cut_field is not None and names.count(spec.cut_field) != 1:
            raise ValueError(f"cut_field {spec.cut_field!r} must stand in the template exactly once")
        self._whole: ResponseTemplate | None = None
        if RESPONSE_FIELD in names:
            if not spec.reads_whole:
                raise ValueError(f"{{{RESPONSE_FIELD}}} stands only in the template of a model that reads whole inputs")
            self._whole = ResponseTemplate(tokenizer, self._parts, spec.cut_field)
        self._begin, self._end = special_ids(tokenizer)
        separator_id = self._end[0] if self._end else first_known(tokenizer, SEPARATORS)
        if separator_id is None:
            raise ValueError("the tokenizer adds no end token and has no known separator")
        pad_id = first_known(tokenizer, PADS)
        if pad_id is None and padding is not None:
            pad_id = int(padding["pad_id"])
        self.separator_id = separator_id
        self.pad_id = separator_id if pad_id is None else pad_id
        self._cached_prefix = lru_cache(maxsize=PREFIX_CACHE_SIZE)(self._tokenize_prefix)

    def encode(self, item: TextItem, spans: Sequence[tuple[Span, ...]]) -> Encoded:
        """Assemble one input.

        Args:
            item: The response and what its template needs.
            spans: The response's segments for each head, in order and not overlapping. A sequence head takes one, or
                none for a blank response.

        Returns:
            Token ids and each head's read-outs. A sequence head's `spans` is always one span: `Span(0, 0)` for a blank
            response.

        Raises:
            MissingFieldError: The template names a field that the item lacks.
            TooLongError: Over `max_tokens`, also after cutting what may be cut.
            InvalidRequestError: A text holds lone surrogates, a sequence head got several segments, or all is empty.
        """
        check_unicode(RESPONSE_FIELD, item.response)
        heads = [_checked(kind, own, item.response) for kind, own in zip(self._spec.kinds, spans, strict=True)]
        if self._whole is not None:
            prefix, body, edges = self._tokenize_whole(self._whole, item, heads[0][0]), [], _Edges({}, {})
        else:
            prefix = self._prefix(item)
            if not self._spec.template and self._spec.reads_whole:
                body, edges = self._tokenize_bare(item.response, heads[0][0]), _Edges({}, {})
            else:
                body, edges = self._tokenize_body(item.response, heads)
        length = len(self._begin) + len(prefix.ids) + len(body) + len(self._end)
        cut = tokens_to_cut(length, self._spec.max_tokens, prefix.cut_to - prefix.cut_from, self._spec.cut_field)
        before = [*self._begin, *prefix.ids[: prefix.cut_to - cut], *prefix.ids[prefix.cut_to :]]
        input_ids = np.array([*before, *body, *self._end], dtype=np.int64)
        reads = tuple(
            self._read(kind, pooling, own, edges, len(before), len(input_ids))
            for (kind, pooling), own in zip(self._spec.heads, heads, strict=True)
        )
        return Encoded(input_ids, reads, truncated_tokens=cut)

    def _prefix(self, item: TextItem) -> _Prefix:
        text, cut_start, cut_end = self._render(item)
        tokenize = self._cached_prefix if len(text) <= MAX_CACHED_CHARS else self._tokenize_prefix
        return tokenize(text, cut_start, cut_end)

    def _tokenize_whole(self, template: ResponseTemplate, item: TextItem, span: Span) -> _Prefix:
        """All of an input whose template says where the response stands."""
        values = {name: _value(item, name) for name in template.fields if name != RESPONSE_FIELD}
        values[RESPONSE_FIELD] = item.response[span.start : span.end]
        for name, value in values.items():
            if name == self._spec.cut_field:
                check_cuttable(name, len(value), self._spec.max_tokens)
            else:
                check_length(self._tokenizer, value, self._spec.max_tokens)
        ids, cut_from, cut_to = template.tokenize(values)
        return _Prefix(ids, cut_from, cut_to)

    def _tokenize_body(self, response: str, heads: Sequence[tuple[Span, ...]]) -> tuple[list[int], _Edges]:
        """The response's ids with separators, and where in them the segments lie."""
        is_before = self._spec.readout is Readout.BEFORE
        starts = {span.start for own in heads for span in own}
        ends = {span.end for own in heads for span in own}
        marks = starts if is_before else ends
        body: list[int] = []
        edges = _Edges({}, {})
        for start, end in _pieces(heads):
            edges.first[start] = len(body)
            if is_before and start in marks:
                body.append(self.separator_id)
            text = response[start:end]
            if not text.isspace():
                body.extend(self._tokenize_response(f" {text}" if start in starts else text))
                check_count(len(body), self._spec.max_tokens)
            if not is_before and end in marks:
                body.append(self.separator_id)
            edges.stop[end] = len(body)
        return body, edges

    def _tokenize_bare(self, response: str, span: Span) -> list[int]:
        """The response alone, as a classifier of plain texts was trained on it: no separator, nothing before it."""
        return self._tokenize_response(response[span.start : span.end])

    def _tokenize_response(self, text: str) -> list[int]:
        """Ids of the response or a part of it, which is never cut."""
        check_length(self._tokenizer, text, self._spec.max_tokens)
        ids: list[int] = tokenize(self._tokenizer, text).ids
        return ids

    def _read(
        self, kind: ModelKind, pooling: Pooling, spans: tuple[Span, ...], edges: _Edges, body_start: int, length: int
    ) -> Read:
        is_before = self._spec.readout is Readout.BEFORE
        if self._spec.reads_whole:
            return Read(np.zeros(0, dtype=np.int64), spans)
        if kind is not ModelKind.TOKEN_CLASSIFICATION and pooling is Pooling.SEPARATOR:
            return Read(np.array([0 if is_before else length - 1], dtype=np.int64), spans)
        if pooling is Pooling.SEPARATOR:
            places = [edges.first[span.start] if is_before else edges.stop[span.end] - 1 for span in spans]
            return Read(np.array([body_start + place for place in places], dtype=np.int64), spans)
        firsts = np.array([body_start + edges.first[span.start] for span in spans], dtype=np.int64)
        widths = np.array([edges.stop[span.end] - edges.first[span.start] for span in spans], dtype=np.int64)
        divisors = widths if pooling is Pooling.MEAN else np.full_like(widths, SUM_UNIT_TOKENS)
        return Read(firsts, spans, widths, divisors)

    def _render(self, item: TextItem) -> tuple[str, int, int]:
        """Fill the template; returns the text and the cut field's range in it."""
        text, cut_start, cut_end = "", 0, 0
        for literal, name in self._parts:
            text += literal
            if name is None:
                continue
            value = _value(item, name)
            if name == self._spec.cut_field:
                cut_start, cut_end = len(text), len(text) + len(value)
            text += value
        return text, cut_start, cut_end

    def _tokenize_prefix(self, text: str, cut_start: int, cut_end: int) -> _Prefix:
        if self._spec.cut_field is not None:
            check_cuttable(self._spec.cut_field, cut_end - cut_start, self._spec.max_tokens)
        for never_cut in (text[:cut_start], text[cut_end:]):
            check_length(self._tokenizer, never_cut, self._spec.max_tokens)
        encoding = tokenize(self._tokenizer, text)
        cuttable = [i for i, (start, end) in enumerate(encoding.offsets) if end > cut_start and start < cut_end]
        if not cuttable:
            return _Prefix(encoding.ids, 0, 0)
        return _Prefix(encoding.ids, cuttable[0], cuttable[-1] + 1)


def _value(item: TextItem, name: str) -> str:
    """What a template's name stands for."""
    value = item.prompt if name == PROMPT_FIELD else item.fields.get(name)
    if value is None:
        raise MissingFieldError(f"the model's template needs the field {name!r}", field=name)
    check_unicode(name, value)
    return value


def _checked(kind: ModelKind, spans: tuple[Span, ...], response: str) -> tuple[Span, ...]:
    """A span head's segments as they are; a sequence head's one."""
    if kind is ModelKind.TOKEN_CLASSIFICATION or len(spans) == 1:
        return spans
    if spans or response.strip():
        raise InvalidRequestError(f"a sequence model takes one segment, got {len(spans)}")
    return (Span(0, 0),)


def _pieces(heads: Sequence[tuple[Span, ...]]) -> Sequence[tuple[int, int]]:
    """The response cut at every edge of a segment, without what lies in no segment; one empty piece if it is blank."""
    if len(heads) == 1:
        return [(span.start, span.end) for span in heads[0]]
    edges = sorted({edge for own in heads for span in own for edge in (span.start, span.end)})
    if edges == [0]:
        return [(0, 0)]
    covered: set[int] = set()
    for own in heads:
        places = iter(edges)
        place = next(places, None)
        for span in own:
            while place is not None and place < span.end:
                if place >= span.start:
                    covered.add(place)
                place = next(places, None)
    return [(start, end) for start, end in pairwise(edges) if start in covered]
