"""Tasks and annotations in one SQLite file.

Every change is on the disk, whole, before its caller hears of it: people's work outlives the process and the power.
"""

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from reward_service.annotation.annotation import Annotation
from reward_service.annotation.task import Task
from reward_service.errors import ConfigError, InvalidRequestError

APPLICATION_ID = 0x52574146
"""In the file's head; tells it from other people's databases."""

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 10.0
"""How long a change waits for another process's."""

_SCHEMA = (
    "CREATE TABLE tasks (position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, content TEXT NOT NULL)",
    "CREATE TABLE annotations (task TEXT NOT NULL REFERENCES tasks (id), annotator TEXT NOT NULL,"
    " content TEXT NOT NULL, done INTEGER NOT NULL, revision INTEGER NOT NULL, changed_s REAL NOT NULL,"
    " PRIMARY KEY (task, annotator))",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


@dataclass(frozen=True, slots=True)
class Kept:
    """An annotation as it is stored.

    Attributes:
        annotator: Whose it is.
        annotation: What is said.
        done: Whether its annotator has finished it.
        revision: Counts its changes, from 1.
    """

    annotator: str
    annotation: Annotation
    done: bool
    revision: int


@dataclass(frozen=True, slots=True)
class TaskState:
    """How far a task is.

    Attributes:
        id: The task's.
        done: Whether the annotator who asks has finished it; None where they have not begun.
        others: How many other people have begun or finished it.
    """

    id: str
    done: bool | None
    others: int


class AnnotationStore:
    """The file, open. Its methods may be called from any thread, and other processes may have it open too.

    Args:
        path: The file; made if it is not there.

    Raises:
        ConfigError: It cannot be opened, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._sql = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise ConfigError(str(path), [str(error)]) from error
        try:
            self._prepare(path)
        except sqlite3.Error as error:
            self._sql.close()
            raise ConfigError(str(path), [f"cannot keep annotations here: {error}"]) from error
        except BaseException:
            self._sql.close()
            raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._sql.close()

    def add_tasks(self, tasks: Iterable[Task]) -> int:
        """Add tasks behind those that are there, and tell how many were new. All are added, or none."""
        with self._change() as sql:
            before = sql.total_changes
            sql.executemany(
                "INSERT INTO tasks (id, content) VALUES (?, ?) ON CONFLICT (id) DO NOTHING",
                ((task.id, task.to_json()) for task in tasks),
            )
            return sql.total_changes - before

    def task(self, task_id: str) -> Task:
        """A task.

        Raises:
            InvalidRequestError: There is none with this id.
        """
        row = self._one("SELECT content FROM tasks WHERE id = ?", task_id)
        if row is None:
            raise InvalidRequestError(f"there is no task {task_id!r}")
        return Task.from_json(row[0])

    def find(self, task_id: str, annotator: str) -> Kept | None:
        """What a person says of a task; None where they have not begun."""
        row = self._one(
            "SELECT annotator, content, done, revision FROM annotations WHERE task = ? AND annotator = ?",
            task_id,
            annotator,
        )
        return None if row is None else _kept(row)

    def states(self, annotator: str) -> list[TaskState]:
        """Every task, in order, as it is to one person."""
        with self._lock:
            rows = self._sql.execute(
                "SELECT tasks.id, max(CASE WHEN annotator = :me THEN done END),"
                " count(CASE WHEN annotator <> :me THEN 1 END)"
                " FROM tasks LEFT JOIN annotations ON task = tasks.id GROUP BY tasks.id ORDER BY position",
                {"me": annotator},
            ).fetchall()
        return [TaskState(task_id, None if done is None else bool(done), others) for task_id, done, others in rows]

    def save(self, task_id: str, annotator: str, annotation: Annotation, *, done: bool, based_on: int) -> int:
        """Keep what a person says of a task in place of what they said before.

        Args:
            task_id: An existing task's.
            annotator: Whose annotation it is.
            annotation: What is said.
            done: Whether it is finished.
            based_on: The revision that was changed; 0 for none.

        Returns:
            The new revision.

        Raises:
            InvalidRequestError: The stored revision is another one: the annotation was changed elsewhere meanwhile.
        """
        with self._change() as sql:
            row = sql.execute(
                "SELECT revision FROM annotations WHERE task = ? AND annotator = ?", (task_id, annotator)
            ).fetchone()
            stored = 0 if row is None else int(row[0])
            if stored != based_on:
                message = "the annotation was changed elsewhere, in another window perhaps; load it again"
                raise InvalidRequestError(message, stored_revision=stored)
            sql.execute(
                "INSERT INTO annotations VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (task, annotator) DO UPDATE SET"
                " content = excluded.content, done = excluded.done, revision = excluded.revision,"
                " changed_s = excluded.changed_s",
                (task_id, annotator, annotation.model_dump_json(by_alias=True), done, stored + 1, time.time()),
            )
            return stored + 1

    def all_tasks(self) -> list[Task]:
        """Every task, in order."""
        with self._lock:
            rows = self._sql.execute("SELECT content FROM tasks ORDER BY position").fetchall()
        return [Task.from_json(row[0]) for row in rows]

    def annotated(self, annotator: str | None = None, *, drafts: bool = False) -> list[tuple[Task, Kept]]:
        """Annotations with their tasks, in the tasks' order, then by name.

        Args:
            annotator: Whose; everybody's if None.
            drafts: Whether unfinished ones are given too.
        """
        with self._lock:
            rows = self._sql.execute(
                "SELECT tasks.content, annotator, annotations.content, done, revision FROM annotations"
                " JOIN tasks ON tasks.id = task WHERE (:who IS NULL OR annotator = :who) AND (done OR :drafts)"
                " ORDER BY position, annotator",
                {"who": annotator, "drafts": drafts},
            ).fetchall()
        return [(Task.from_json(row[0]), _kept(row[1:])) for row in rows]

    def changes(self) -> int:
        """A number that changes with every annotation that is saved."""
        row = self._one("SELECT coalesce(sum(revision), 0) FROM annotations")
        return 0 if row is None else int(row[0])

    def _prepare(self, path: Path) -> None:
        with self._lock:
            # Before the switch to a log that is flushed at every commit: a foreign file stays as it is.
            tables, owner = (
                self._sql.execute("SELECT count(*) FROM sqlite_master").fetchone()[0],
                self._sql.execute("PRAGMA application_id").fetchone()[0],
            )
            if tables and owner != APPLICATION_ID:
                raise ConfigError(str(path), ["is another program's database"])
            version = self._sql.execute("PRAGMA user_version").fetchone()[0]
            if tables and version != SCHEMA_VERSION:
                raise ConfigError(str(path), [f"was written by another release (schema {version})"])
            self._sql.execute("PRAGMA journal_mode = WAL")
            self._sql.execute("PRAGMA synchronous = FULL")
            self._sql.execute("PRAGMA foreign_keys = ON")
        with self._change() as sql:
            if not sql.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in _SCHEMA:
                    sql.execute(statement)

    def _one(self, statement: str, *values: str) -> tuple[str, ...] | None:
        with self._lock:
            row: tuple[str, ...] | None = self._sql.execute(statement, values).fetchone()
        return row

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """One transaction, alone from its beginning."""
        with self._lock:
            self._sql.execute("BEGIN IMMEDIATE")
            try:
                yield self._sql
                self._sql.execute("COMMIT")
            except BaseException:
                if self._sql.in_transaction:
                    self._sql.execute("ROLLBACK")
                raise


def _kept(row: tuple[str, ...]) -> Kept:
    annotator, content, done, revision = row
    return Kept(annotator, Annotation.model_validate_json(content), bool(done), int(revision))


@contextmanager
def opened_store(path: Path) -> Iterator[AnnotationStore]:
    """The file for as long as it is needed.

    Raises:
        ConfigError: It cannot be opened, or holds something else.
    """
    with closing(AnnotationStore(path)) as store:
        yield store
