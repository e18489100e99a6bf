"""Text to segments: sentences by sentencex, sub-sentences by the paper's rule, paragraphs at blank lines.

Spans are half-open ranges of Unicode code points of the text as it was given. They are trimmed of white space,
non-blank, in order and apart; what lies between them is white space.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import sentencex

from reward_proto.score import Granularity
from reward_service.domain import Span
from reward_service.errors import InvalidRequestError, TooLongError

SEGMENTER_VERSION = "sentencex-1"
"""These rules over sentencex as it was tested. Raise it with any change that moves a span; see `segmenter_version`."""

DEFAULT_LANGUAGE = "en"
"""Of texts whose language nobody says."""

MIN_SUB_SENTENCE_WORDS = 5
"""A piece with fewer words joins its neighbour (arXiv 2306.01693, released code)."""

MAX_SEGMENTS = 100_000
"""Of one text, more than any model reads. A body of 8 MB could have millions, at 200 bytes of memory each."""

BLOCK_CHARS = 5_000
"""sentencex lets no other thread run while it divides: a longer text is handed to it in blocks of paragraphs, which it
divides one by one in any case."""

MAX_EFFORT, MAX_EFFORT_ASCII = 30_000_000, 150_000_000
"""Marks x characters of a paragraph. sentencex takes up to 5 ns for each, 0.7 ns in ASCII: a tenth of a second, where
100,000 characters of Chinese without a blank line would stop the process for half a minute."""

BACKTICK_MARKS = 4
"""As how many marks one of these counts: sentencex looks at everything that they may enclose."""

MAX_PARAGRAPHS_EFFORT = 10
"""Times the effort of one paragraph that those of a text may have together."""

_SUB_SENTENCE_END = re.compile(r"[,;!?](?!\S)")
_WORD_START = re.compile(r"\S")
_BLANK_LINE = re.compile(r"\n\s*\n")
_PARAGRAPH_GAP = re.compile(r"\n\n+")
"""Where sentencex itself begins anew."""
_MARK = re.compile(r"[^\w\s,;:\-()\[\]{}*&/—–，；：、（）]")
"""What may end a sentence, or quote one. To the others sentencex pays next to no attention."""
# sentencex 1.0 panics where white space of several UTF-8 bytes stands before a full stop. A blank for a blank keeps
# every offset.
_ASCII_BLANKS = {code: " " for code in range(0x80, 0x3001) if chr(code).isspace()}


def segment_text(text: str, granularity: Granularity, language: str = DEFAULT_LANGUAGE) -> tuple[Span, ...]:
    """Divide a text.

    Args:
        text: Any text; a blank one has no segments.
        granularity: How finely. `sequence` is the trimmed whole.
        language: ISO 639 code that chooses sentencex's abbreviations and marks; unknown ones fall back to English.

    Returns:
        Trimmed, non-blank spans in order, in code points of `text`.

    Raises:
        InvalidRequestError: The text holds lone surrogates, or the segmenter cannot divide it, or not in time.
        TooLongError: It has more than `MAX_SEGMENTS`.

    Source: Wu et al., arXiv 2306.01693: sub-sentences for relevance, sentences for factuality, the sequence for
        completeness.
    """
    spans = tuple(islice(_divide(text, granularity, language), MAX_SEGMENTS + 1))
    if len(spans) > MAX_SEGMENTS:
        raise TooLongError(f"the text has more than {MAX_SEGMENTS} segments", max_segments=MAX_SEGMENTS)
    return spans


def check_spans(text: str, spans: Sequence[Span]) -> tuple[Span, ...]:
    """Check spans that a caller sent in place of the segmenter's.

    Args:
        text: The response.
        spans: Half-open code-point spans; they need not cover the text.

    Returns:
        The same spans.

    Raises:
        InvalidRequestError: A span is empty, blank, out of range, out of order or overlaps the one before.
    """
    previous_end = 0
    for index, span in enumerate(spans):
        where = f"segment {index} [{span.start}, {span.end})"
        if not 0 <= span.start < span.end <= len(text):
            raise InvalidRequestError(f"{where} is empty or outside the response's {len(text)} characters")
        if span.start < previous_end:
            raise InvalidRequestError(f"{where} overlaps the segment before it, or is out of order")
        if text[span.start : span.end].isspace():
            raise InvalidRequestError(f"{where} is blank")
        previous_end = span.end
    return tuple(spans)


def _divide(text: str, granularity: Granularity, language: str) -> Iterator[Span]:
    if granularity is Granularity.SEQUENCE:
        return _trimmed(text, [(0, len(text))])
    if granularity is Granularity.PARAGRAPH:
        return _trimmed(text, _paragraphs(text))
    sentences = _trimmed(text, _sentences(text, language))
    if granularity is Granularity.SENTENCE:
        return sentences
    return (piece for sentence in sentences for piece in _sub_sentences(text, sentence))


def _trimmed(text: str, ranges: Iterable[tuple[int, int]]) -> Iterator[Span]:
    for start, end in ranges:
        piece = text[start:end]
        body = piece.strip()
        if body:
            first = start + len(piece) - len(piece.lstrip())
            yield Span(first, first + len(body))


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for gap in _BLANK_LINE.finditer(text):
        yield start, gap.start()
        start = gap.end()
    yield start, len(text)


def _sentences(text: str, language: str) -> Iterator[tuple[int, int]]:
    if not text.strip():
        return
    plain = text if text.isascii() else text.translate(_ASCII_BLANKS)
    _check_effort(plain)
    for start, end in _blocks(plain):
        for first, last in _boundaries(plain[start:end], language):
            yield start + first, start + last


def _check_effort(text: str) -> None:
    most = MAX_EFFORT_ASCII if text.isascii() else MAX_EFFORT
    if BACKTICK_MARKS * len(text) ** 2 <= most:  # Whatever is in it.
        return
    efforts = [len(part) * _count_marks(part) for part in _PARAGRAPH_GAP.split(text)]
    if max(efforts) > most or sum(efforts) > most * MAX_PARAGRAPHS_EFFORT:
        raise InvalidRequestError(
            f"dividing these {len(text)} characters into sentences would take too long: paragraphs, which blank lines "
            "part, must be shorter or have fewer marks"
        )


def _count_marks(text: str) -> int:
    return sum(1 for _ in _MARK.finditer(text)) + (BACKTICK_MARKS - 1) * text.count("`")


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    while gap := _PARAGRAPH_GAP.search(text, start + BLOCK_CHARS):
        yield start, gap.end()
        start = gap.end()
    yield start, len(text)


def _boundaries(text: str, language: str) -> list[tuple[int, int]]:
    try:
        boundaries = sentencex.get_sentence_boundaries(language, text)
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"the text is not valid Unicode: {error.reason}") from error
    except BaseException as error:
        # A Rust panic is no Exception; left alone it would end the thread that serves every caller.
        if type(error).__name__ != "PanicException":
            raise
        raise InvalidRequestError(f"the sentence segmenter cannot divide this text: {error}") from error
    return [(boundary["start_index"], boundary["end_index"]) for boundary in boundaries]


def _sub_sentences(text: str, sentence: Span) -> list[Span]:
    """Split after a word that ends in `, ; ! ?`; a short piece joins the next one, the last joins the one before."""
    pieces: list[Span] = []
    start = sentence.start
    for mark in _SUB_SENTENCE_END.finditer(text, sentence.start, sentence.end):
        if _is_long(text[start : mark.end()]):
            pieces.append(Span(start, mark.end()))
            rest = _WORD_START.search(text, mark.end(), sentence.end)
            start = sentence.end if rest is None else rest.start()
    last = text[start : sentence.end]
    if not pieces or _is_long(last):
        pieces.append(Span(start, sentence.end))
    elif last:
        pieces[-1] = Span(pieces[-1].start, sentence.end)
    return pieces


def _is_long(piece: str) -> bool:
    """Whether it has the words of a sub-sentence."""
    return len(piece.split(None, MIN_SUB_SENTENCE_WORDS - 1)) == MIN_SUB_SENTENCE_WORDS
