"""The database, on SQLite and on a real PostgreSQL."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text, update

from reward_service.ledger.answer import Answer
from reward_service.ledger.database import Database, ForeignDatabaseError, database_url, opened
from reward_service.ledger.rows import Rows, make_rows
from reward_service.ledger.tables import about

MINUTE_MS = 60_000


def rows_of(answer: Answer, writer: int = 5, seq: int = 0) -> Rows:
    return make_rows(answer, writer, seq, texts=True)


def view(database: Database) -> list[dict[str, Any]]:
    """What a person would query."""
    with database.engine.connect() as connection:
        query = text("SELECT * FROM reward_ledger ORDER BY time_ms, writer, seq, model")
        return [dict(row) for row in connection.execute(query).mappings()]


def test_rows_come_back_value_for_value(database: Database, make_answer: Callable[..., Answer]) -> None:
    rows = rows_of(make_answer(items=2))
    database.write(rows)
    by_key = {row["seq"]: row for row in rows.items}
    expected = [{**by_key[row["seq"]], **row} for row in sorted(rows.scores, key=lambda r: (r["seq"], r["model"]))]
    assert [{**row, "cached": bool(row["cached"])} for row in view(database)] == expected


def test_the_same_rows_are_written_once(database: Database, make_answer: Callable[..., Answer]) -> None:
    rows = rows_of(make_answer(items=3))
    database.write(rows)
    database.write(rows)
    assert len(view(database)) == 6
    assert database.size_bytes() == sum(row["bytes"] for row in rows.by_minute())


def test_sums_of_minutes_add_up(database: Database, make_answer: Callable[..., Answer]) -> None:
    first, second = rows_of(make_answer(MINUTE_MS)), rows_of(make_answer(MINUTE_MS + 1), seq=1)
    later = rows_of(make_answer(3 * MINUTE_MS), writer=6)
    size = first.by_minute()[0]["bytes"]
    for rows in (later, first, second):
        database.write(rows)
    assert database.oldest(9) == [(1, 2 * size), (3, size)]
    assert database.oldest(1) == [(1, 2 * size)]
    assert database.forget(1) == 4
    assert database.oldest(9) == [(3, size)]
    assert [row["time_ms"] for row in view(database)] == [3 * MINUTE_MS] * 2
    database.give_back()


def test_it_is_prepared_once(place: str, open_database: Callable[..., Database]) -> None:
    for database in (open_database(place), open_database(place)):
        database.prepare()
        database.prepare()
    with opened(place):
        pass


def test_another_format_is_refused(place: str, open_database: Callable[..., Database], database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(update(about).values(version=99))
    for refuse in (open_database(place).prepare, open_database(place).check):
        with pytest.raises(ForeignDatabaseError, match="format 99, this release writes 1"):
            refuse()


def test_a_database_without_a_ledger_is_not_read(place: str, open_database: Callable[..., Database]) -> None:
    if "://" not in place:
        sqlite3.connect(place).execute("VACUUM")  # An empty database.
    with pytest.raises(ForeignDatabaseError, match="holds no ledger"), opened(place):
        pass


def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path, open_database: Callable[..., Database]) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    before = path.read_bytes()
    for refuse in (open_database(path).prepare, open_database(path, reads_only=True).check):
        with pytest.raises(ForeignDatabaseError, match="another program's database"):
            refuse()
    assert path.read_bytes() == before
    path.write_bytes(b"not a database, not even a small one" * 99)
    with pytest.raises(ForeignDatabaseError, match="no database"):
        open_database(path).prepare()


def test_a_file_that_is_not_there_is_not_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(ForeignDatabaseError, match="no such file"), opened(tmp_path / "none.db"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_postgresql_in_another_encoding_is_refused(postgres: Any, open_database: Callable[..., Database]) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    with pytest.raises(ForeignDatabaseError, match="LATIN1"):
        open_database(postgres.url("latin")).prepare()


def test_passwords_are_not_told() -> None:
    database = Database(database_url("postgresql://me:secret@nowhere.invalid/db"))
    assert "secret" not in database.name
    assert "nowhere.invalid" in database.name


def test_two_writers_at_a_time(
    place: str, open_database: Callable[..., Database], database: Database, make_answer: Callable[..., Answer]
) -> None:
    def write_many(target: Database, writer: int) -> None:
        for seq in range(20):
            target.write(rows_of(make_answer(), writer, seq))

    with ThreadPoolExecutor(2) as pool:
        writing = [pool.submit(write_many, database, 0), pool.submit(write_many, open_database(place), 1)]
        for one in writing:
            one.result()
    assert len(view(database)) == 80
    size = rows_of(make_answer()).by_minute()[0]["bytes"]
    assert database.oldest(9) == [(1, 40 * size)]
