"""Scores out of a file that `reward-service ledger export` wrote: one row for each item and model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from reward_proto import ModelScore
from rl_client.errors import DataError

DIGEST_COLUMN = "item_digest"
_SCORE_COLUMNS = (
    "model",
    "version",
    "runtime",
    "granularity",
    "segments",
    "sequence_score",
    "truncated_tokens",
)
_SEGMENT_PARTS = ("start", "end", "score", "label")
_READ_ROWS = 1024


def is_ledger_export(schema: pa.Schema) -> bool:
    """Whether a Parquet file has the columns of an export that scores can be reused from."""
    return {DIGEST_COLUMN, *_SCORE_COLUMNS} <= set(schema.names)


def read_ledger(path: Path) -> Iterator[tuple[str, ModelScore]]:
    """Digests of items and one score of each.

    Raises:
        DataError: If a row is no score.
    """
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_READ_ROWS, columns=[DIGEST_COLUMN, *_SCORE_COLUMNS]):
            for record in batch.to_pylist():
                digest = record.pop(DIGEST_COLUMN)
                record["segments"] = _segments(record["segments"])
                try:
                    yield digest, ModelScore.model_validate(record)
                except ValidationError as error:
                    raise DataError(f"{path}: the score of {digest} by {record['model']}: {error}") from error


def _segments(value: Any) -> Any:
    """The ledger's tables hold them as JSON, `[[start, end, score, label], ...]`."""
    if not isinstance(value, str):
        return value
    return [dict(zip(_SEGMENT_PARTS, one, strict=True)) for one in json.loads(value)]
