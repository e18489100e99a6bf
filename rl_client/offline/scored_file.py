"""The scored file: its Arrow schema, and rows to and from it.

One row for each row of the data, in its order. `scores` holds for each model what the service's reply holds, but for
`cached`: where a score came from this time stands apart, in `sources`, so that files of the same scores compare equal.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from reward_proto import ModelScore
from rl_client.errors import DataError
from rl_client.offline.rows import Row, digest_of

METADATA_KEY = b"rl_client.scored"
"""Where a scored file says, as JSON, which models scored it and where the scores came from."""
READ_ROWS = 1024

_SEGMENT = pa.struct(
    [("start", pa.int32()), ("end", pa.int32()), ("score", pa.float64()), ("label", pa.string())],
)
_ERROR = pa.struct([("code", pa.string()), ("message", pa.string()), ("retryable", pa.bool_())])
_SCORE = pa.struct(
    [
        ("model", pa.string()),
        ("version", pa.string()),
        ("runtime", pa.string()),
        ("granularity", pa.string()),
        ("segments", pa.list_(_SEGMENT)),
        ("sequence_score", pa.float64()),
        ("truncated_tokens", pa.int32()),
        ("error", _ERROR),
    ]
)
_LEFT_OUT: Any = {"cached": True, "segments": {"__all__": {"logits"}}}


class ScoreSource(StrEnum):
    """Where a score came from."""

    COMPUTED = "computed"
    CACHED = "cached"
    REUSED = "reused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A response with each model's score or error, and where each came from."""

    row: Row
    scores: Mapping[str, ModelScore]
    sources: Mapping[str, ScoreSource]


def scored_schema(models: Sequence[str]) -> pa.Schema:
    """The columns of a file that these models scored."""
    texts = pa.map_(pa.string(), pa.string())
    return pa.schema(
        [
            ("row", pa.int64()),
            ("id", pa.string()),
            ("sample", pa.int64()),
            ("prompt", pa.string()),
            ("response", pa.string()),
            ("fields", texts),
            ("kept", texts),
            ("digest", pa.string()),
            ("scores", pa.struct([(model, _SCORE) for model in models])),
            ("sources", pa.struct([(model, pa.string()) for model in models])),
        ]
    )


def make_table(rows: Sequence[ScoredRow], models: Sequence[str]) -> pa.Table:
    """Rows as Arrow has them."""
    records = [
        {
            "row": scored.row.number,
            "id": scored.row.id,
            "sample": scored.row.sample,
            "prompt": scored.row.item.prompt,
            "response": scored.row.item.response,
            "fields": list(scored.row.item.fields.items()),
            "kept": list(scored.row.kept.items()),
            "digest": digest_of(scored.row),
            "scores": {name: _score_record(scored.scores[name]) for name in models},
            "sources": {name: scored.sources[name].value for name in models},
        }
        for scored in rows
    ]
    return pa.Table.from_pylist(records, schema=scored_schema(models))


def is_scored(path: Path) -> bool:
    """Whether a Parquet file was written by `rl-client score`."""
    return METADATA_KEY in (pq.read_schema(path).metadata or {})


def read_scored(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The records of a scored file, in order; `scores` as `ModelScore`s.

    Args:
        path: What `rl-client score` wrote.
        columns: Only these; all when None.

    Raises:
        DataError: If it is not such a file.
    """
    try:
        with pq.ParquetFile(path) as file:
            if METADATA_KEY not in (file.schema_arrow.metadata or {}):
                raise DataError(f"{path} was not written by `rl-client score`")
            for batch in file.iter_batches(READ_ROWS, columns=columns):
                for record in batch.to_pylist(maps_as_pydicts="strict"):
                    if "scores" in record:
                        record["scores"] = parse_scores(str(path), record["scores"])
                    yield record
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def parse_scores(place: str, scores: Mapping[str, Any]) -> dict[str, ModelScore]:
    """Scores by model name, of a scored file's row or of a line that `rl-client evaluate` wrote.

    Raises:
        DataError: If one is no `ModelScore`.
    """
    try:
        return {name: ModelScore.model_validate(score) for name, score in scores.items() if score is not None}
    except ValidationError as error:
        fault = error.errors()[0]
        raise DataError(f"{place}: scores.{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error


def _score_record(score: ModelScore) -> dict[str, Any]:
    return score.model_dump(mode="json", exclude=_LEFT_OUT)
