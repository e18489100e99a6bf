"""The responses of one policy, with their scores, prompt by prompt."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from reward_proto import ModelScore
from rl_client.errors import DataError, VersionChangedError
from rl_client.offline.rows import Columns, parse_row
from rl_client.offline.scored_file import is_scored, parse_scores, read_scored
from rl_client.offline.sources import PARQUET_SUFFIX, open_source

RESPONSES_FILE = "responses.jsonl"
"""What `rl-client evaluate` writes into its folder."""
REFERENCE_COLUMNS = ("references", "reference")
LENGTH_COLUMN = "length_tokens"
_COLUMNS = Columns()


@dataclass(frozen=True, slots=True)
class Response:
    """One response.

    Attributes:
        text: What the policy wrote.
        scores: By model name; an error where there is no score. Empty where nothing scored it.
        length_tokens: In the policy's tokens, where the file has it.
    """

    text: str
    scores: Mapping[str, ModelScore]
    length_tokens: int | None


@dataclass(frozen=True, slots=True)
class PromptResponses:
    """Every response to one prompt.

    Attributes:
        id: Names the prompt.
        prompt: What the policy was given.
        fields: Named inputs.
        responses: One or more.
        references: What a good response says; may be empty.
        slices: The columns to slice by, as text.
    """

    id: str
    prompt: str
    fields: Mapping[str, str]
    responses: tuple[Response, ...]
    references: tuple[str, ...]
    slices: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class System:
    """A policy's responses.

    Attributes:
        name: What reports call it.
        prompts: By id, in the order of the file.
        models: By name the version and runtime that scored.
    """

    name: str
    prompts: Mapping[str, PromptResponses]
    models: Mapping[str, tuple[str, str]]


def load_system(
    name: str, path: Path, *, slices: Sequence[str] = (), references: Mapping[str, Sequence[str]] | None = None
) -> System:
    """Read a policy's responses.

    Args:
        name: What reports call it.
        path: An output of `score`, a folder or `responses.jsonl` of `evaluate`, or any file that `score` could read.
        slices: Columns to slice by.
        references: By prompt id; in place of those in the file.

    Raises:
        DataError: If a row cannot be used, two rows are the same sample of a prompt, rows of one prompt differ in
            the prompt, or a column to slice by is absent.
        VersionChangedError: If one model scored with two versions or runtimes.
    """
    if path.is_dir() and (path / RESPONSES_FILE).is_file():
        path = path / RESPONSES_FILE
    found: dict[str, list[Response]] = defaultdict(list)
    heads: dict[str, PromptResponses] = {}
    samples: set[tuple[str, int]] = set()
    models: dict[str, tuple[str, str]] = {}
    for number, (place, record) in enumerate(_records(path, slices)):
        row = parse_row(place, number, record, _COLUMNS)
        if row.sample is not None and (row.id, row.sample) in samples:
            raise DataError(f"{place}: sample {row.sample} of {row.id!r} occurs twice")
        samples.add((row.id, -1 if row.sample is None else row.sample))
        head = PromptResponses(
            row.id,
            row.item.prompt,
            row.item.fields,
            (),
            _references(record) if references is None else tuple(references.get(row.id, ())),
            {column: _slice(place, record, column) for column in slices},
        )
        if heads.setdefault(row.id, head) != head:
            raise DataError(f"{place}: {row.id!r} has another prompt, reference or slice than in a row before")
        scores = parse_scores(place, record.get("scores") or {})
        _agree(place, models, scores)
        found[row.id].append(Response(row.item.response, scores, record.get(LENGTH_COLUMN)))
    if not found:
        raise DataError(f"{path} holds no responses")
    prompts = {
        key: PromptResponses(key, head.prompt, head.fields, tuple(found[key]), head.references, head.slices)
        for key, head in heads.items()
    }
    return System(name, prompts, models)


def read_references(path: Path) -> dict[str, tuple[str, ...]]:
    """References by prompt id, from records of `id` and `reference` (a text) or `references` (several).

    Raises:
        DataError: If a record has neither, or an id occurs twice.
    """
    source = open_source(path)
    found: dict[str, tuple[str, ...]] = {}
    for place, record in source.read(0, source.rows, ["id", *REFERENCE_COLUMNS]):
        texts = _references(record)
        if not texts or record.get("id") is None:
            raise DataError(f"{place}: must have an 'id' and a 'reference' or 'references'")
        if str(record["id"]) in found:
            raise DataError(f"{place}: the id {record['id']!r} occurs twice")
        found[str(record["id"])] = texts
    return found


def _records(path: Path, slices: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.suffix == PARQUET_SUFFIX and path.is_file() and _is_scored(path):
        for number, record in enumerate(read_scored(path)):
            yield f"{path}, row {number}", record
        return
    source = open_source(path)
    wanted = [*_COLUMNS.read, "scores", LENGTH_COLUMN, *REFERENCE_COLUMNS, *slices]
    yield from source.read(0, source.rows, wanted)


def _is_scored(path: Path) -> bool:
    try:
        return is_scored(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _references(record: Mapping[str, Any]) -> tuple[str, ...]:
    for column in REFERENCE_COLUMNS:
        value = record.get(column, (record.get("kept") or {}).get(column))
        if isinstance(value, str):
            return (value,)
        if value:
            return tuple(str(text) for text in value)
    return ()


def _slice(place: str, record: Mapping[str, Any], column: str) -> str:
    value = record.get(column, (record.get("kept") or {}).get(column))
    if value is None:
        raise DataError(f"{place}: no {column!r} to slice by (`rl-client score --keep {column}` carries it along)")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _agree(place: str, models: dict[str, tuple[str, str]], scores: Mapping[str, ModelScore]) -> None:
    for name, score in scores.items():
        pin = (score.version, score.runtime)
        if models.setdefault(name, pin) != pin:
            raise VersionChangedError(
                f"{place}: {name} is {' on '.join(pin)}, and {' on '.join(models[name])} in a row before; "
                "score the file anew so that the numbers mean the same"
            )
