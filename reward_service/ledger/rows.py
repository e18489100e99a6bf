"""Answers -> rows of the tables."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from reward_proto.digest import item_digest, text_digest
from reward_service.domain import ItemScore, ModelCard, TextItem
from reward_service.ledger.answer import Answer, Asker
from reward_service.ledger.tables import MS_PER_MINUTE

ROW_BYTES = 100
"""What a row takes besides its texts: numbers, headers, and its places in indexes."""

NUL, NO_NUL = "\x00", "\ufffd"
"""PostgreSQL's texts hold no NUL; in names and ids this stands for it."""

Row = dict[str, Any]


@dataclass(slots=True)
class Rows:
    """What one transaction adds.

    Attributes:
        items: Rows of `tables.items`.
        scores: Rows of `tables.scores`.
    """

    items: list[Row] = field(default_factory=list)
    scores: list[Row] = field(default_factory=list)

    def add(self, other: "Rows") -> None:
        """Put the rows of another one behind these."""
        self.items += other.items
        self.scores += other.scores

    def by_minute(self) -> list[Row]:
        """Rows of `tables.minutes`, in the order of time."""
        sums: dict[int, list[int]] = {}
        for place, rows in ((0, self.items), (1, self.scores)):
            for row in rows:
                of_minute = sums.setdefault(row["time_ms"] // MS_PER_MINUTE, [0, 0, 0])
                of_minute[place] += 1
                of_minute[2] += _size_bytes(row)
        return [
            {"minute": minute, "items": items, "scores": scores, "bytes": size}
            for minute, (items, scores, size) in sorted(sums.items())
        ]


def make_rows(answer: Answer, writer: int, first_seq: int, *, texts: bool) -> Rows:
    """The rows of an answer; none for an item without a single score.

    Args:
        answer: What was answered.
        writer: Names this process.
        first_seq: Of its first item; one is used up for each.
        texts: Whether the texts are recorded.
    """
    rows = Rows()
    for place, (item_id, item) in enumerate(zip(answer.item_ids, answer.items, strict=True)):
        key = {"time_ms": answer.time_ms, "writer": writer, "seq": first_seq + place}
        given = [(model.card, model.results[place]) for model in answer.models]
        scores = [_score_row(key, card, score) for card, score in given if isinstance(score, ItemScore)]
        if scores:
            rows.items.append(_item_row(key, answer.asker, item_id, item, texts))
            rows.scores += scores
    return rows


def decode_segments(content: str) -> list[Row]:
    """The column `segments` as dictionaries `start`, `end`, `score`, `label`."""
    return [dict(zip(("start", "end", "score", "label"), one, strict=True)) for one in json.loads(content)]


def _item_row(key: Row, asker: Asker, item_id: str, item: TextItem, texts: bool) -> Row:
    segments = {name.value: [(span.start, span.end) for span in spans] for name, spans in item.segments.items()}
    told = {"prompt": item.prompt, "response": item.response, "fields": item.fields}
    return {
        **key,
        "request_id": _named(asker.request_id),
        "item_id": _named(item_id),
        "client_job": _named(asker.client_job) or None,
        "run": _named(asker.run) or None,
        "step": asker.step,
        "prompt_digest": text_digest(item.prompt),
        "response_digest": text_digest(item.response),
        "item_digest": item_digest(item.prompt, item.response, item.fields, segments),
        "texts": _json(told) if texts else None,
    }


def _score_row(key: Row, card: ModelCard, score: ItemScore) -> Row:
    segments: Sequence[Iterable[Any]] = [(one.span.start, one.span.end, one.score, one.label) for one in score.segments]
    return {
        **key,
        "model": card.name,
        "version": card.version,
        "runtime": card.runtime,
        "granularity": card.granularity.value,
        "sequence_score": score.sequence_score,
        "segments": _json(segments),
        "truncated_tokens": score.truncated_tokens,
        "cached": score.cached,
    }


def _named(text: str) -> str:
    return text.replace(NUL, NO_NUL)


def _json(told: Any) -> str:
    return to_json(told).decode()  # Several times as fast as the standard library's; no score is NaN or infinite.


def _size_bytes(row: Row) -> int:
    # Characters for bytes: most texts are about that, and the sum need not be exact.
    return ROW_BYTES + sum([len(value) for value in row.values() if type(value) is str])
