"""The folder of finished parts beside an unfinished output: what makes a killed run lose and double nothing.

Part n holds the rows n * chunk_rows up to (n + 1) * chunk_rows. It is written under another name and moved when every
byte is on disk, so a part is whole or not there. When all are there they become the output, in one move.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from rl_client.errors import DataError, RunFolderError, VersionChangedError
from rl_client.folder_lock import hold_lock
from rl_client.offline.scored_file import METADATA_KEY, scored_schema

PLAN_FILE = "plan.json"
LOCK_FILE = "lock"
COUNTS_KEY = b"rl_client.counts"
GROUP_ROWS = 8192
"""Rows of one row group of the output."""

Counts = Counter[str]
"""Scores by `ScoreSource`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What decides the output, and so must be the same when a run goes on.

    Attributes:
        data_digest: Names the data's content.
        rows: Of the data.
        chunk_rows: Rows of a part; the last may have fewer.
        columns: What the data's columns mean.
        models: By name the version and the runtime that score.
    """

    data_digest: str
    rows: int
    chunk_rows: int
    columns: Mapping[str, Any]
    models: Mapping[str, tuple[str, str]]

    @property
    def chunks(self) -> int:
        """How many parts there are."""
        return -(-self.rows // self.chunk_rows)

    def bounds(self, chunk: int) -> tuple[int, int]:
        """First row of a part, and one past its last."""
        return chunk * self.chunk_rows, min(self.rows, (chunk + 1) * self.chunk_rows)


class Parts:
    """The parts of one output. A context manager: inside, no other process works on them.

    Args:
        output: The file that is made.
        plan: What is made. The chunk size of an unfinished output is kept, whatever this says.
        restart: Throw an unfinished output away.

    Raises:
        RunFolderError: If another process works on it, or what is unfinished is of other data or settings.
        VersionChangedError: If what is unfinished was scored by other versions of the models.
    """

    def __init__(self, output: Path, plan: Plan, *, restart: bool = False) -> None:
        self.output = output
        self.folder = parts_folder(output)
        self.plan = plan
        self._restart = restart
        self._held = ExitStack()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(hold_lock(self.folder / LOCK_FILE, self.output))
            self._agree()
            self._held = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def missing(self) -> list[int]:
        """Numbers of the parts that are not there, in order."""
        present = {path.name for path in self.folder.glob("part-*.parquet")}
        return [chunk for chunk in range(self.plan.chunks) if self._path(chunk).name not in present]

    def write(self, chunk: int, table: pa.Table, counts: Counts) -> None:
        """Put a part on disk, whole."""
        metadata = {**(table.schema.metadata or {}), COUNTS_KEY: json.dumps(counts).encode()}
        draft = self._path(chunk).with_suffix(".unfinished")
        with draft.open("wb") as file:
            pq.write_table(table.replace_schema_metadata(metadata), file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path(chunk))

    def counts(self) -> Counts:
        """Over all parts that are there, scores by where they came from."""
        total: Counts = Counter()
        for chunk in range(self.plan.chunks):
            if self._path(chunk).exists():
                total.update(json.loads(pq.read_schema(self._path(chunk)).metadata[COUNTS_KEY]))
        return total

    def finish(self, counts: Counts) -> None:
        """Make the output of the parts, all of which must be there, and remove them.

        Raises:
            DataError: If a part does not hold the rows that it must; then the parts stay.
        """
        said = {**asdict(self.plan), "counts": counts}
        schema = scored_schema(list(self.plan.models)).with_metadata({METADATA_KEY: json.dumps(said).encode()})
        draft = self.output.with_name(f".unfinished-{self.output.name}")
        with draft.open("wb") as file:
            with pq.ParquetWriter(file, schema) as writer:
                for table in self._groups():
                    writer.write_table(table.replace_schema_metadata(schema.metadata))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.output)
        shutil.rmtree(self.folder)

    def _groups(self) -> Iterator[pa.Table]:
        """The parts in order, joined to row groups of a good size."""
        group: list[pa.Table] = []
        for chunk in range(self.plan.chunks):
            table = pq.read_table(self._path(chunk), use_threads=False)
            start, stop = self.plan.bounds(chunk)
            if table.num_rows != stop - start or table["row"][0].as_py() != start:
                raise DataError(
                    f"{self._path(chunk)} does not hold the rows {start} to {stop}; remove it and run again"
                )
            group.append(table.replace_schema_metadata(None))
            if sum(part.num_rows for part in group) >= GROUP_ROWS:
                yield pa.concat_tables(group)
                group = []
        if group:
            yield pa.concat_tables(group)

    def _path(self, chunk: int) -> Path:
        return self.folder / f"part-{chunk:09d}.parquet"

    def _agree(self) -> None:
        """Go on with what is there, or begin."""
        path = self.folder / PLAN_FILE
        if self._restart or not path.exists():
            for old in self.folder.glob("part-*"):
                old.unlink()
            draft = path.with_suffix(".unfinished")
            draft.write_text(json.dumps(asdict(self.plan)), encoding="utf-8")
            draft.replace(path)
            return
        found = json.loads(path.read_text(encoding="utf-8"))
        made = json.loads(json.dumps(asdict(self.plan)))
        advice = f"finish it as it was begun, or begin anew with --restart ({self.folder})"
        if sorted(found["models"]) == sorted(made["models"]) and found["models"] != made["models"]:
            raise VersionChangedError(
                f"{self.output} was begun with {_tell(found['models'])}; now it is {_tell(made['models'])}; {advice}"
            )
        changed = [name for name in found if name != "chunk_rows" and found[name] != made.get(name)]
        if changed:
            raise RunFolderError(f"{self.output} was begun with other {', '.join(changed)}; {advice}")
        self.plan = Plan(**{**found, "models": {name: tuple(pin) for name, pin in found["models"].items()}})


def parts_folder(output: Path) -> Path:
    """Where the parts of an unfinished output are."""
    return output.with_name(output.name + ".parts")


def is_made(output: Path, plan: Plan) -> bool:
    """Whether an output is there that this plan would make again, whole, and nothing is unfinished beside it.

    What names the scores is in the file itself: the digest of the data, what its columns mean, versions and runtimes.
    """
    if not output.exists() or parts_folder(output).exists():
        return False
    said = json.loads((pq.read_schema(output).metadata or {}).get(METADATA_KEY, b"{}"))
    if said.get("counts", {}).get("failed", 0):
        return False
    wanted = json.loads(json.dumps(asdict(plan)))
    return all(said.get(name) == value for name, value in wanted.items() if name != "chunk_rows")


def _tell(models: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}@{version} on {runtime}" for name, (version, runtime) in sorted(models.items()))
