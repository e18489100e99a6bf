"""Records -> what is scored, by the columns that the caller names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from reward_proto import ScoreItem, item_digest
from rl_client.errors import DataError
from rl_client.offline.sources import Record

SEGMENTS_COLUMN = "segments"
PROMPT_COLUMN = "prompt"


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a record mean what.

    Attributes:
        id: Names the prompt; the row's number stands in where it is absent.
        sample: Tells several responses to one prompt apart; absent when there is one.
        prompt: What the policy was given; empty where it is absent under the default name.
        response: The text to score.
        fields: A mapping of named inputs for the models' templates.
        named_fields: Further inputs, as (name in the template, column).
        keep: Columns that go into the output as text, to slice by.
    """

    id: str = "id"
    sample: str = "sample"
    prompt: str = PROMPT_COLUMN
    response: str = "response"
    fields: str = "fields"
    named_fields: tuple[tuple[str, str], ...] = ()
    keep: tuple[str, ...] = ()

    @property
    def read(self) -> list[str]:
        """Every column that is read."""
        named = [column for _, column in self.named_fields]
        return [self.id, self.sample, self.prompt, self.response, self.fields, SEGMENTS_COLUMN, *named, *self.keep]


@dataclass(frozen=True, slots=True)
class Row:
    """One response.

    Attributes:
        number: Its place in the data, from 0.
        id: What the data calls its prompt.
        sample: Which response to the prompt; None where the data has no such column.
        item: What is scored; its id is the row's number.
        kept: The columns to keep, as text.
    """

    number: int
    id: str
    sample: int | None
    item: ScoreItem
    kept: Mapping[str, str]


def parse_row(place: str, number: int, record: Record, columns: Columns) -> Row:
    """Read one record.

    Args:
        place: Where it stands, for messages.
        number: Its place in the data, from 0.
        record: The columns by name.
        columns: What they mean.

    Raises:
        DataError: If a column that is needed is absent or of another type, or a text cannot be written as UTF-8.
    """
    for column in (columns.response, *(column for _, column in columns.named_fields), *columns.keep):
        if record.get(column) is None:
            raise DataError(f"{place}: no {column!r}; it has {', '.join(map(repr, record)) or 'nothing'}")
    if columns.prompt != PROMPT_COLUMN and record.get(columns.prompt) is None:
        raise DataError(f"{place}: no {columns.prompt!r}")
    sample = record.get(columns.sample)
    if sample is not None and (isinstance(sample, bool) or not isinstance(sample, int)):
        raise DataError(f"{place}: {columns.sample!r} must be a whole number, not {sample!r}")
    prompt = record.get(columns.prompt)
    given = record.get(columns.id)
    named = {name: record[column] for name, column in columns.named_fields}
    kept = {column: _as_text(record[column]) for column in columns.keep}
    row_id = str(number) if given is None else str(given)
    try:
        item = ScoreItem(
            id=str(number),
            prompt="" if prompt is None else prompt,
            response=record[columns.response],
            fields=_mapping(place, columns.fields, record) | named,
            segments=_mapping(place, SEGMENTS_COLUMN, record),
        )
        for text in (item.prompt, item.response, row_id, *item.fields, *item.fields.values(), *kept.values()):
            text.encode()
    except ValidationError as error:
        fault = error.errors()[0]
        raise DataError(f"{place}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    except UnicodeEncodeError as error:
        raise DataError(f"{place} holds half a character, which cannot be written: {error}") from error
    return Row(number, row_id, sample, item, kept)


def digest_of(row: Row) -> str:
    """Names the texts of a row; see `reward_proto.item_digest`."""
    item = row.item
    segments = {granularity.value: spans for granularity, spans in item.segments.items()}
    return item_digest(item.prompt, item.response, item.fields, segments)


def _mapping(place: str, column: str, record: Record) -> dict[str, Any]:
    """A JSON object as it is; an Arrow map is pairs, and an Arrow struct holds null for keys that a row lacks."""
    value = record.get(column)
    if value is None:
        return {}
    try:
        return {key: entry for key, entry in dict(value).items() if entry is not None}
    except (TypeError, ValueError) as error:
        raise DataError(f"{place}: {column!r} must be a mapping, not {value!r}") from error


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
