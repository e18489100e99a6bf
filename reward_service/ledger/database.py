"""The ledger's database: SQLite with a write-ahead log, or PostgreSQL.

Several processes may write at a time. What is committed outlives the process however it ends.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Insert,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url

from reward_service.ledger.rows import Rows
from reward_service.ledger.tables import MS_PER_MINUTE, SCHEMA_VERSION, VIEW, VIEW_NAME, about, items, metadata, minutes
from reward_service.ledger.tables import scores as scores_table

BUSY_TIMEOUT_S = 5.0
"""How long SQLite waits for another process's writing."""

CONNECT_TIMEOUT_S = 5
WAL_LIMIT_BYTES = 4 * 1024 * 1024
"""What SQLite's write-ahead log is cut to after its pages went into the file."""

PAGE_BYTES = 16384
"""Of a SQLite file: several rows with texts fit into one."""

KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
"""A PostgreSQL that went away without a word is noticed within 20 s or so."""

PSYCOPG = "postgresql+psycopg"
SETUP_LOCK = 0x52574C47
"""PostgreSQL's advisory lock while tables are made: two replicas may start at once."""


class ForeignDatabaseError(Exception):
    """The database is not one that this release keeps a ledger in."""


def database_url(place: str | Path) -> URL:
    """Where a ledger is.

    Args:
        place: A SQLite file, or an address `postgresql://...`.
    """
    if isinstance(place, Path) or "://" not in place:
        return URL.create("sqlite", database=str(place))
    return make_url(place).set(drivername=PSYCOPG)


class Database:
    """Connects when it is asked to. Every method may raise `SQLAlchemyError`.

    Args:
        url: Where it is.
        reads_only: Whether it is only read from; SQLite then takes no lock that writers wait for.
    """

    def __init__(self, url: URL, *, reads_only: bool = False) -> None:
        self.name = url.render_as_string(hide_password=True)
        self.engine = _sqlite_engine(url, reads_only) if _is_sqlite(url) else _postgresql_engine(url)
        self._insert_items, self._insert_scores = (
            str(insert(table).compile(dialect=self.engine.dialect)) for table in (items, scores_table)
        )

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file."""
        return _is_sqlite(self.engine.url)

    def prepare(self) -> None:
        """Make the tables, if they are not there.

        Raises:
            ForeignDatabaseError: It holds something else, or cannot hold every text.
        """
        with self.engine.begin() as connection:
            if not self.is_sqlite:
                connection.execute(select(func.pg_advisory_xact_lock(SETUP_LOCK)))
                if (encoding := connection.execute(text("SHOW server_encoding")).scalar_one()) != "UTF8":
                    raise ForeignDatabaseError(f"{self.name} is encoded in {encoding}, the ledger needs UTF8")
            if self._is_ready(connection):
                return
            metadata.create_all(connection)
            query = VIEW.compile(connection, compile_kwargs={"literal_binds": True})
            connection.execute(text(f"CREATE VIEW {VIEW_NAME} AS {query}"))
            connection.execute(insert(about), {"version": SCHEMA_VERSION})

    def check(self) -> None:
        """See that there is a ledger.

        Raises:
            ForeignDatabaseError: There is none.
        """
        with self.engine.begin() as connection:
            if not self._is_ready(connection):
                raise ForeignDatabaseError(f"{self.name} holds no ledger")

    def write(self, rows: Rows) -> None:
        """Commit rows, all or none. May be repeated: rows that were committed before are left as they are."""
        with self.engine.begin() as connection:
            first = rows.items[0]
            there = select(items.c.seq).where(*(items.c[name] == first[name] for name in ("time_ms", "writer", "seq")))
            if connection.execute(there).first() is not None:
                return
            # As the driver takes them: SQLAlchemy's own handling of each row would cost more than the writing.
            connection.exec_driver_sql(self._insert_items, rows.items)
            connection.exec_driver_sql(self._insert_scores, rows.scores)
            connection.execute(self._added_up(), rows.by_minute())

    def size_bytes(self) -> int:
        """About what all rows take."""
        with self.engine.begin() as connection:
            return int(connection.execute(select(func.coalesce(func.sum(minutes.c.bytes), 0))).scalar_one())

    def oldest(self, limit: int) -> list[tuple[int, int]]:
        """The oldest minutes in which something was recorded, and about what that takes, in bytes."""
        query = select(minutes.c.minute, minutes.c.bytes).order_by(minutes.c.minute).limit(limit)
        with self.engine.begin() as connection:
            return [(minute, size) for minute, size in connection.execute(query)]

    def forget(self, minute: int) -> int:
        """Delete what was recorded in a minute; returns how many scores that were."""
        begin_ms = minute * MS_PER_MINUTE
        with self.engine.begin() as connection:
            connection.execute(delete(minutes).where(minutes.c.minute == minute))
            counts = [
                connection.execute(
                    delete(table).where(table.c.time_ms >= begin_ms, table.c.time_ms < begin_ms + MS_PER_MINUTE)
                ).rowcount
                for table in (items, scores_table)
            ]
        return counts[1]

    def give_back(self) -> None:
        """Give the room of deleted rows back to the file system, where that is not done by itself."""
        if self.is_sqlite:
            with self.engine.connect() as connection:
                raw: Any = connection.connection.dbapi_connection
                raw.executescript("PRAGMA incremental_vacuum")  # `execute` would take one step of it: one page.

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _is_ready(self, connection: Connection) -> bool:
        """False if the tables are still to be made."""
        if not inspect(connection).has_table(about.name):
            return False
        version = connection.execute(select(about.c.version)).scalar()
        if version != SCHEMA_VERSION:
            raise ForeignDatabaseError(f"{self.name} has the format {version}, this release writes {SCHEMA_VERSION}")
        return True

    def _added_up(self) -> Insert:
        """Adds to the minutes that are there."""
        dialect = sqlite if self.is_sqlite else postgresql
        adding = dialect.insert(minutes)
        sums = {name: minutes.c[name] + adding.excluded[name] for name in ("items", "scores", "bytes")}
        added: Insert = adding.on_conflict_do_update(index_elements=[minutes.c.minute], set_=sums)
        return added


@contextmanager
def opened(place: str | Path) -> Iterator[Database]:
    """A ledger to read.

    Raises:
        ForeignDatabaseError: There is none.
    """
    url = database_url(place)
    if _is_sqlite(url) and not Path(str(url.database)).is_file():
        raise ForeignDatabaseError(f"{url.database}: there is no such file")
    database = Database(url, reads_only=True)
    try:
        database.check()
        yield database
    finally:
        database.close()


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _postgresql_engine(url: URL) -> Engine:
    wanted = {"connect_timeout": CONNECT_TIMEOUT_S, "client_encoding": "utf8", **KEEPALIVE}
    given = {name: value for name, value in wanted.items() if name not in url.query}
    return create_engine(url, connect_args=given, pool_size=1, pool_pre_ping=True, hide_parameters=True)


def _sqlite_engine(url: URL, reads_only: bool) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S}, hide_parameters=True, paramstyle="named")

    def prepare(connection: Any, record: object) -> None:
        del record
        connection.isolation_level = None  # Python's sqlite3 would begin transactions by itself, and too late.
        statements = ["PRAGMA trusted_schema = OFF"]
        _refuse_foreign_file(connection, str(url.database))
        if not reads_only:
            # Only a file without tables can still be told to give pages back, and how large they are.
            statements += [f"PRAGMA page_size = {PAGE_BYTES}", "PRAGMA auto_vacuum = INCREMENTAL"]
            statements += ["PRAGMA journal_mode = WAL"]
            statements += ["PRAGMA synchronous = NORMAL", f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}"]
        for statement in statements:
            connection.execute(statement).close()

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


def _refuse_foreign_file(connection: sqlite3.Connection, name: str) -> None:
    """Before anything is changed in it."""
    try:
        there = {table for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise ForeignDatabaseError(f"{name} is no database") from error
        raise
    if there and about.name not in there:
        raise ForeignDatabaseError(f"{name} is another program's database")
