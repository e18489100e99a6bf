"""The ledger as a Parquet file: one row for each score."""

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reward_service.ledger.rows import Row

GROUP_ROWS = 5000
"""Rows of one row group, which is what is in memory at a time."""

UNFINISHED = ".unfinished"
"""Stands behind the file's name until all rows are in it."""

SEGMENT = pa.struct(
    [("start", pa.int64()), ("end", pa.int64()), ("score", pa.float64()), ("label", pa.string())],
)
SCHEMA = pa.schema(
    [
        ("scored_at", pa.timestamp("ms", tz="UTC")),
        ("request_id", pa.string()),
        ("item_id", pa.string()),
        ("client_job", pa.string()),
        ("run", pa.string()),
        ("step", pa.int64()),
        ("model", pa.string()),
        ("version", pa.string()),
        ("runtime", pa.string()),
        ("granularity", pa.string()),
        ("sequence_score", pa.float64()),
        ("segments", pa.list_(SEGMENT)),
        ("truncated_tokens", pa.int64()),
        ("cached", pa.bool_()),
        ("prompt_digest", pa.string()),
        ("response_digest", pa.string()),
        ("item_digest", pa.string()),
        ("prompt", pa.string()),
        ("response", pa.string()),
        ("fields", pa.string()),
    ]
)


def write_parquet(rows: Iterable[Row], path: Path, on_rows: Callable[[int], None]) -> int:
    """Write rows to a file, which is there when all of them are in it.

    Args:
        rows: Any number, with the columns of `SCHEMA`.
        path: The file; one that is there is replaced.
        on_rows: Told how many more were written.

    Returns:
        How many there are.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    written = 0
    try:
        with pq.ParquetWriter(unfinished, SCHEMA, compression="zstd") as writer:
            rest = iter(rows)
            while group := list(islice(rest, GROUP_ROWS)):
                writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))
                written += len(group)
                on_rows(len(group))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return written
