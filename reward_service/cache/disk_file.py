"""One connection to the file that scores are kept in: SQLite with a write-ahead log.

Several connections, and several processes on one machine, may have the file open. What is committed outlives the
process however it ends (`kill -9` too); a power cut may take the newest commits, never the file.
"""

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

APPLICATION_ID = 0x52574443
"""In the file's head; tells it from other people's databases."""

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 5.0
"""How long a connection waits for another process's writing."""

WAL_LIMIT_BYTES = 4 * 1024 * 1024
"""What the write-ahead log is cut to after its pages went into the file."""

CHECK_BYTES = 16
READ_KEYS = 500
"""Keys of one SELECT."""

EVICT_ROWS = 64
FILL_SHARE = 0.95
"""A file that is over its bound is emptied to this share, so that not every batch must evict."""

WAL_TRIES = 40
WAL_TRY_S = 0.05
"""How often, and how far apart, the switch to a write-ahead log is tried while another process holds the file."""

_SCHEMA = (
    "CREATE TABLE scores (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used_ms INTEGER NOT NULL,"
    " digest BLOB NOT NULL, value BLOB NOT NULL)",
    "CREATE INDEX scores_by_use ON scores (used_ms)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


class ForeignFileError(Exception):
    """The file is a database, but not one that this release keeps scores in."""


@dataclass(slots=True)
class Changes:
    """What one transaction does.

    Attributes:
        values: To keep, by key.
        used: Keys that were used, although nothing about them is new.
        broken: Keys of rows that failed their check.
    """

    values: dict[bytes, bytes] = field(default_factory=dict)
    used: set[bytes] = field(default_factory=set)
    broken: set[bytes] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Found:
    """What a reading gave.

    Attributes:
        values: By key.
        broken: Keys of rows that failed their check.
    """

    values: dict[bytes, bytes]
    broken: set[bytes]


class DiskFile:
    """A connection, for the thread that opened it. Every method may raise `sqlite3.Error`.

    Args:
        path: The file; made if it is not there.

    Raises:
        ForeignFileError: It holds something else. Nothing was changed in it.
    """

    def __init__(self, path: Path) -> None:
        self._sql = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            self._prepare(path)
            self._sql.text_factory = bytes  # What damage made into text need not be UTF-8.
        except BaseException:
            self._sql.close()
            raise

    @property
    def size_bytes(self) -> int:
        """What the rows and their indexes take; pages that are free are not counted."""
        pages, free, page_bytes = (self._pragma(name) for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * page_bytes

    def read(self, keys: Sequence[bytes]) -> Found:
        """The values of those keys that are there and sound."""
        values: dict[bytes, bytes] = {}
        broken: set[bytes] = set()
        for first in range(0, len(keys), READ_KEYS):
            some = keys[first : first + READ_KEYS]
            marks = ",".join("?" * len(some))
            rows = self._sql.execute(f"SELECT key, digest, value FROM scores WHERE key IN ({marks})", some)  # noqa: S608
            for key, digest, value in rows:
                # A damaged file may hold any type in any column.
                if isinstance(key, bytes) and isinstance(value, bytes) and digest == _check_of(key, value):
                    values[key] = value
                else:
                    broken.add(key)
        return Found(values, broken)

    def write(self, changes: Changes, now_ms: int, touch_after_ms: int) -> None:
        """Commit changes, all or none.

        Args:
            changes: What to do.
            now_ms: Becomes the time of last use of what is new or used.
            touch_after_ms: A row that was used less long ago is left as it is, to spare the disk.
        """
        with self._transaction():
            self._sql.executemany("DELETE FROM scores WHERE key = ?", ((key,) for key in changes.broken))
            self._sql.executemany(
                "INSERT INTO scores (key, used_ms, digest, value) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (key) DO UPDATE SET used_ms = excluded.used_ms, digest = excluded.digest,"
                " value = excluded.value",
                _rows(changes.values, now_ms),
            )
            self._sql.executemany(
                "UPDATE scores SET used_ms = ? WHERE key = ? AND used_ms <= ?",
                ((now_ms, key, now_ms - touch_after_ms) for key in changes.used),
            )

    def shrink(self, max_bytes: int) -> int:
        """Delete the rows that were used longest ago, if the file is over its bound; returns how many."""
        evicted = 0
        if self.size_bytes > max_bytes:
            while self.size_bytes > max_bytes * FILL_SHARE and (gone := self._evict()):
                evicted += gone
        if self._pragma("page_count") * self._pragma("page_size") > max_bytes:
            # `execute` would take one step of it, which is one page.
            self._sql.executescript("PRAGMA incremental_vacuum")
        return evicted

    def close(self) -> None:
        """Close the connection."""
        self._sql.close()

    def _evict(self) -> int:
        with self._transaction():
            oldest = "DELETE FROM scores WHERE id IN (SELECT id FROM scores ORDER BY used_ms LIMIT ?)"
            return self._sql.execute(oldest, (EVICT_ROWS,)).rowcount

    def _prepare(self, path: Path) -> None:
        self._sql.execute("PRAGMA trusted_schema = OFF")
        self._sql.execute("PRAGMA cell_size_check = ON")
        self._sql.execute("BEGIN")  # Another process may be making its tables: what is read here belongs together.
        try:
            ready = self._is_ours(path)
        finally:
            self._sql.execute("COMMIT")
        if not ready:
            # Only a file without tables can still be told to give pages back.
            self._sql.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._use_wal()
        self._sql.execute("PRAGMA synchronous = NORMAL")
        self._sql.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
        with self._transaction():
            if not self._is_ours(path):
                for statement in _SCHEMA:
                    self._sql.execute(statement)

    def _is_ours(self, path: Path) -> bool:
        """True if it is ready, False if it is empty."""
        application, version = self._pragma("application_id"), self._pragma("user_version")
        if application == APPLICATION_ID:
            if version != SCHEMA_VERSION:
                raise ForeignFileError(f"{path} has the format {version}, this release writes {SCHEMA_VERSION}")
            return True
        if application or version or self._sql.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            raise ForeignFileError(f"{path} is another program's database")
        return False

    def _use_wal(self) -> None:
        # SQLite does not wait for its busy time-out here when two processes open a new file at once.
        for left in reversed(range(WAL_TRIES)):
            try:
                (mode,) = self._sql.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError:
                if not left:
                    raise
                time.sleep(WAL_TRY_S)
                continue
            if mode != "wal":
                raise sqlite3.OperationalError(f"the file system has no write-ahead log, only {mode}")
            return

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._sql.execute("COMMIT")
        except BaseException:
            if self._sql.in_transaction:
                self._sql.execute("ROLLBACK")
            raise

    def _pragma(self, name: str) -> int:
        return int(self._sql.execute(f"PRAGMA {name}").fetchone()[0])


def _check_of(key: bytes, value: bytes) -> bytes:
    return hashlib.blake2b(key + value, digest_size=CHECK_BYTES).digest()


def _rows(values: Mapping[bytes, bytes], now_ms: int) -> Iterable[tuple[bytes, int, bytes, bytes]]:
    return ((key, now_ms, _check_of(key, value), value) for key, value in values.items())
