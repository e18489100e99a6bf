"""Files of records of any size, read a range at a time: JSONL, Parquet, and folders of Hugging Face `datasets`."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from rl_client.errors import DataError

Record = Mapping[str, Any]

JSONL_SUFFIXES = (".jsonl", ".ndjson")
PARQUET_SUFFIX = ".parquet"
DATASET_STATE = "state.json"
DATASET_SPLITS = "dataset_dict.json"
MARK_EVERY_ROWS = 1024
"""A JSONL file's byte positions are remembered this many rows apart, to start reading in the middle."""
BATCH_ROWS = 1024
_HASH_BLOCK_BYTES = 1 << 20
_SHOWN_CHARS = 80


class Source(Protocol):
    """Records in a fixed order.

    Attributes:
        rows: How many there are.
        digest: Names their content: SHA-256 of all bytes.
    """

    rows: int
    digest: str

    def read(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[tuple[str, Record]]:
        """The records `start` to `stop`, each with its place for messages.

        Args:
            start: Number of the first, from 0.
            stop: One past the last.
            columns: What is wanted of a record; it may hold more, and may lack some.
        """
        ...


def open_source(path: Path, split: str | None = None) -> Source:
    """Open a file or folder of records and count them; a JSONL file is read through once for that.

    Args:
        path: A `.jsonl` or `.parquet` file, a folder of Parquet files, or what `datasets` wrote with `save_to_disk`.
        split: Which one of a `DatasetDict`.

    Raises:
        DataError: If it is none of these, is damaged, or the split is not there.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if split is not None and not (path / DATASET_SPLITS).is_file():
        raise DataError(f"{path} has no splits; only a DatasetDict folder has")
    try:
        if path.is_dir():
            return _open_folder(path, split)
        if path.suffix in JSONL_SUFFIXES:
            return JsonlSource(path)
        if path.suffix == PARQUET_SUFFIX:
            return ParquetSource([path])
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    raise DataError(f"{path} is neither .jsonl nor .parquet nor a folder")


def _open_folder(path: Path, split: str | None) -> Source:
    if (path / DATASET_SPLITS).is_file():
        splits = _read_json(path / DATASET_SPLITS).get("splits", [])
        if split is None and len(splits) == 1:
            (split,) = splits
        if split not in splits:
            raise DataError(f"{path} has the splits {', '.join(splits)}; name one of them with --split")
        path = path / str(split)
    if (path / DATASET_STATE).is_file():
        named = _read_json(path / DATASET_STATE).get("_data_files", [])
        return ArrowSource([path / entry["filename"] for entry in named])
    if files := sorted(path.glob(f"*{PARQUET_SUFFIX}")):
        return ParquetSource(files)
    raise DataError(f"{path} holds no Parquet files and is not a folder that `datasets` wrote with save_to_disk")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(read, dict):
        raise DataError(f"{path} is not a JSON object")
    return read


class JsonlSource:
    """One JSON object a line; blank lines are skipped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._marks: list[tuple[int, int]] = []
        """Byte position and line number, from 1, of every `MARK_EVERY_ROWS`th record."""
        self.rows = 0
        digest = hashlib.sha256()
        position = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                digest.update(line)
                if not line.isspace():
                    if self.rows % MARK_EVERY_ROWS == 0:
                        self._marks.append((position, number))
                    self.rows += 1
                position += len(line)
        self.digest = digest.hexdigest()

    def read(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[tuple[str, Record]]:
        """See `Source.read`."""
        if start >= min(stop, self.rows):
            return
        position, number = self._marks[start // MARK_EVERY_ROWS]
        with self._path.open("rb") as file:
            file.seek(position)
            numbered = ((at, line) for at, line in enumerate(file, start=number) if not line.isspace())
            skipped = start % MARK_EVERY_ROWS
            for at, line in islice(numbered, skipped, skipped + stop - start):
                place = f"{self._path}, line {at}"
                yield place, _parse_line(place, line)


class ParquetSource:
    """The rows of Parquet files, one file after the other."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._file_rows = []
        for path in paths:
            with pq.ParquetFile(path) as file:
                self._file_rows.append(file.metadata.num_rows)
        self.rows = sum(self._file_rows)
        self.digest = _hash_files(paths)

    def read(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[tuple[str, Record]]:
        """See `Source.read`."""
        first = 0
        for path, rows in zip(self._paths, self._file_rows, strict=True):
            if first < stop and start < first + rows:
                yield from _read_parquet(path, max(0, start - first), min(rows, stop - first), columns)
            first += rows


class ArrowSource:
    """The rows of Arrow streams, as `datasets` writes them; mapped into memory, not read into it."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self.rows = 0
        for path in paths:
            self.rows += sum(batch.num_rows for batch in _stream(path))
        self.digest = _hash_files(paths)

    def read(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[tuple[str, Record]]:
        """See `Source.read`."""
        first = 0
        for path in self._paths:
            for batch in _stream(path):
                begin, end = max(0, start - first), min(batch.num_rows, stop - first)
                if begin < end:
                    wanted = batch.select([name for name in batch.schema.names if name in columns])
                    for offset, record in enumerate(wanted.slice(begin, end - begin).to_pylist(), start=begin):
                        yield f"{path.parent}, row {first + offset}", record
                first += batch.num_rows
                if first >= stop:
                    return


def _read_parquet(path: Path, start: int, stop: int, columns: Sequence[str]) -> Iterator[tuple[str, Record]]:
    with pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if name in columns]
        row = 0
        groups: list[int] = []
        for group in range(file.metadata.num_row_groups):
            ends = row + file.metadata.row_group(group).num_rows
            if ends > start and row < stop:
                if not groups:
                    first = row
                groups.append(group)
            row = ends
        if not groups:
            return
        at = first
        for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=names):
            begin, end = max(0, start - at), min(batch.num_rows, stop - at)
            if begin < end:
                for offset, record in enumerate(batch.slice(begin, end - begin).to_pylist(), start=begin):
                    yield f"{path}, row {at + offset}", record
            at += batch.num_rows
            if at >= stop:
                return


def _stream(path: Path) -> Iterator[Any]:
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
        yield from reader


def _parse_line(place: str, line: bytes) -> Record:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"{place} is not a JSON object: {line[:_SHOWN_CHARS]!r}")
    return record


def _hash_files(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_HASH_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()
