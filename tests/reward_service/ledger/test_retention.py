"""What goes, by age and by size, on SQLite and PostgreSQL."""

from collections.abc import Callable
from pathlib import Path

from reward_service.ledger.answer import Answer
from reward_service.ledger.database import Database
from reward_service.ledger.retention import MINUTES_PER_PASS, Retention
from reward_service.ledger.rows import make_rows

MINUTE_MS = 60_000
MUCH = 10**12


def fill(database: Database, make_answer: Callable[..., Answer], minutes: list[int]) -> int:
    """Two scores in each minute; returns what those of one take."""
    size = 0
    for seq, minute in enumerate(minutes):
        rows = make_rows(make_answer(minute * MINUTE_MS + 59_999), 5, seq, texts=False)
        database.write(rows)
        size = rows.by_minute()[0]["bytes"]
    return size


def left(database: Database) -> list[int]:
    return [minute for minute, _ in database.oldest(1000)]


def test_by_age(database: Database, make_answer: Callable[..., Answer]) -> None:
    fill(database, make_answer, [10, 11, 12, 20])
    retention = Retention(max_age_ms=5 * MINUTE_MS, max_bytes=MUCH)
    # Minute 11 ends at 12 min: at 17 min its last moment is 5 min old, and one millisecond before it is not.
    assert retention.expire(database, 17 * MINUTE_MS - 1) == (2, True)
    assert left(database) == [11, 12, 20]
    assert retention.expire(database, 17 * MINUTE_MS) == (2, True)
    assert retention.expire(database, 17 * MINUTE_MS) == (0, True)
    assert left(database) == [12, 20]
    assert retention.expire(database, 10**6 * MINUTE_MS) == (4, True)
    assert left(database) == []


def test_by_size(database: Database, make_answer: Callable[..., Answer]) -> None:
    size = fill(database, make_answer, list(range(1, 21)))
    assert Retention(None, 20 * size).expire(database, 99 * MINUTE_MS) == (0, True)
    # Over the bound of 19, it is emptied to 95 % of it: 18.05, so that 18 stay.
    assert Retention(None, 19 * size).expire(database, 99 * MINUTE_MS) == (4, True)
    assert left(database) == list(range(3, 21))
    assert database.size_bytes() == 18 * size


def test_the_minute_that_is_written_stays(database: Database, make_answer: Callable[..., Answer]) -> None:
    fill(database, make_answer, [7, 8])
    assert Retention(None, 1).expire(database, 8 * MINUTE_MS + 30_000) == (2, True)
    assert left(database) == [8]


def test_much_goes_in_several_passes(database: Database, make_answer: Callable[..., Answer]) -> None:
    fill(database, make_answer, list(range(1, MINUTES_PER_PASS + 3)))
    retention = Retention(MINUTE_MS, MUCH)
    assert retention.expire(database, 1000 * MINUTE_MS) == (2 * MINUTES_PER_PASS, False)
    assert retention.expire(database, 1000 * MINUTE_MS) == (4, True)


def test_a_file_shrinks(
    tmp_path: Path, open_database: Callable[..., Database], make_answer: Callable[..., Answer]
) -> None:
    path = tmp_path / "ledger.db"
    database = open_database(path)
    database.prepare()
    for minute in range(1, 11):
        database.write(make_rows(make_answer(minute * MINUTE_MS, items=200), 5, 1000 * minute, texts=True))
    full = database.size_bytes()
    database.close()  # So that the write-ahead log is in the file.
    assert 0.8 < full / path.stat().st_size < 1.25
    assert Retention(None, full // 2).expire(database, 99 * MINUTE_MS)[0] >= 1600
    database.close()
    assert path.stat().st_size < 0.65 * full
