"""Scores that exist already, from earlier outputs and ledger exports, found by what names a number.

A score is reused when texts, model, version and runtime are the same; errors never are. The index is a SQLite file, so
that memory stays constant whatever the files hold.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from reward_proto import ModelScore
from rl_client.errors import DataError
from rl_client.offline.ledger_export import is_ledger_export, read_ledger
from rl_client.offline.rows import Columns, Row, digest_of, parse_row
from rl_client.offline.scored_file import METADATA_KEY, parse_scores, read_scored
from rl_client.offline.sources import PARQUET_SUFFIX, open_source

INDEX_FILE = "reuse.sqlite"
_INSERT_ROWS = 4096
_QUERY_KEYS = 500
"""Parameters of one query; SQLite allows at least 999."""
_KEY_BYTES = 16

Pins = Mapping[str, tuple[str, str]]
"""By model name the version and the runtime."""


class ReuseIndex:
    """Scores by digest, model, version and runtime; for one thread."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)

    @classmethod
    def build(cls, path: Path, files: Sequence[Path], pins: Pins) -> Self:
        """Read files into a new index; of two scores for the same texts, that of the earlier file stays.

        Args:
            path: Where the index goes; what is there is replaced.
            files: Outputs of `score`, exports of the ledger, `responses.jsonl` of `evaluate`.
            pins: Whose scores are wanted; others are passed over.

        Raises:
            DataError: If a file is none of these.
        """
        path.unlink(missing_ok=True)
        database = sqlite3.connect(path)
        # The index is made anew at each start, so it need not survive a crash.
        database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;")
        database.execute("CREATE TABLE scores (key BLOB PRIMARY KEY, score TEXT NOT NULL) WITHOUT ROWID")
        for file in files:
            entries = (
                (_key(digest, score.model, pins[score.model]), score.model_dump_json())
                for digest, score in _read(file)
                if score.error is None and pins.get(score.model) == (score.version, score.runtime)
            )
            while some := list(islice(entries, _INSERT_ROWS)):
                database.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?)", some)
        database.commit()
        database.close()
        return cls(path)

    def find(self, rows: Sequence[Row], pins: Pins) -> list[dict[str, ModelScore]]:
        """For each row the scores that are known, by model name."""
        keys = [{name: _key(digest_of(row), name, pin) for name, pin in pins.items()} for row in rows]
        known = self._fetch(list({key for of_row in keys for key in of_row.values()}))
        return [
            {name: ModelScore.model_validate_json(known[key]) for name, key in of_row.items() if key in known}
            for of_row in keys
        ]

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _fetch(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        known: dict[bytes, str] = {}
        for start in range(0, len(keys), _QUERY_KEYS):
            some = keys[start : start + _QUERY_KEYS]
            marks = ",".join("?" * len(some))
            # Only question marks are put into the text.
            known.update(self._database.execute(f"SELECT key, score FROM scores WHERE key IN ({marks})", some))  # noqa: S608
        return known


def _key(digest: str, model: str, pin: tuple[str, str]) -> bytes:
    # None of the four holds a line break: a digest, a version and a runtime never do, and a model's name is a file's.
    return blake2b("\n".join((digest, model, *pin)).encode(), digest_size=_KEY_BYTES).digest()


def _read(path: Path) -> Iterator[tuple[str, ModelScore]]:
    if path.suffix != PARQUET_SUFFIX:
        return _read_responses(path)
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if METADATA_KEY in (schema.metadata or {}):
        records = read_scored(path, ["digest", "scores"])
        return ((record["digest"], score) for record in records for score in record["scores"].values())
    if is_ledger_export(schema):
        return read_ledger(path)
    raise DataError(f"{path} was written neither by `rl-client score` nor by `reward-service ledger export`")


def _read_responses(path: Path) -> Iterator[tuple[str, ModelScore]]:
    """Lines that `rl-client evaluate` wrote."""
    columns = Columns()
    source = open_source(path)
    for number, (place, record) in enumerate(source.read(0, source.rows, [*columns.read, "scores"])):
        if record.get("scores") is None:
            raise DataError(f"{place}: no 'scores' to reuse")
        digest = digest_of(parse_row(place, number, record, columns))
        for score in parse_scores(place, record["scores"]).values():
            yield digest, score
