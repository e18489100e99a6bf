"""Passages as one text, for programs that mark spans only, and spans in it back to sentences. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from reward_proto.feedback import MissingInfo
from reward_proto.score import Granularity
from reward_service.core.segment import segment_text

ENTRY_BREAK = "\n"
PASSAGE_BREAK = "\n\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a sentence of a passage, or its title, lies in the text.

    Attributes:
        passage_id: From 1.
        sentence: 0 is the title.
        start: In code points.
        end: One past the last.
    """

    passage_id: int
    sentence: int
    start: int
    end: int


def join_passages(passages: Sequence[Sequence[str]]) -> tuple[str, list[Entry]]:
    """One text of all passages, a line an entry, and where each entry lies."""
    parts: list[str] = []
    entries: list[Entry] = []
    length = 0
    for passage_id, passage in enumerate(passages, start=1):
        for sentence, text in enumerate(passage):
            separator = "" if not parts else PASSAGE_BREAK if sentence == 0 else ENTRY_BREAK
            parts += [separator, text]
            start = length + len(separator)
            length = start + len(text)
            entries.append(Entry(passage_id, sentence, start, length))
    return "".join(parts), entries


def divide_text(text: str) -> tuple[tuple[str, ...], ...]:
    """A passage without title for each line of a text that is not blank, divided into sentences."""
    return tuple(
        ("", *(line[span.start : span.end] for span in segment_text(line, Granularity.SENTENCE)))
        for line in text.splitlines()
        if line.strip()
    )


def missing_at(entries: Sequence[Entry], start: int, end: int, error_type: str) -> list[MissingInfo]:
    """What a span in the joined text says is missing: the entries of which it covers half, or most of itself lies in.

    Raises:
        ValueError: It lies in no entry.
    """
    overlaps = [(min(entry.end, end) - max(entry.start, start), entry) for entry in entries]
    most = max((overlap for overlap, _ in overlaps), default=0)
    if most <= 0:
        raise ValueError(f"span [{start}, {end}) lies in no sentence of the passages")
    return [
        MissingInfo(error_type=error_type, passage_id=entry.passage_id, sentence_id=[entry.sentence])
        for overlap, entry in overlaps
        if overlap > 0 and (overlap == most or 2 * overlap >= entry.end - entry.start)
    ]
