import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reward_service.cache.disk_file import Changes, DiskFile, ForeignFileError


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scores.db"


@pytest.fixture
def open_file(path: Path) -> Iterator[Callable[[], DiskFile]]:
    opened: list[DiskFile] = []

    def make() -> DiskFile:
        opened.append(DiskFile(path))
        return opened[-1]

    yield make
    for file in opened:
        file.close()


def put(file: DiskFile, *numbers: int, now_ms: int = 0, size: int = 10) -> None:
    file.write(Changes({key(number): bytes([number % 256]) * size for number in numbers}), now_ms, 0)


def damage(path: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement, values)
    connection.close()


def test_what_is_written_is_found_by_every_connection(open_file: Callable[[], DiskFile]) -> None:
    one, other = open_file(), open_file()
    put(one, *range(1200))
    put(other, 5, size=20)
    for file in (one, other, open_file()):
        found = file.read([key(number) for number in range(1300)])
        assert found.broken == set()
        assert len(found.values) == 1200
        assert (found.values[key(4)], found.values[key(5)]) == (b"\x04" * 10, b"\x05" * 20)


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("UPDATE scores SET value = ? WHERE key = ?", b"\x01" * 9 + b"\x03"),
        ("UPDATE scores SET value = ? WHERE key = ?", "text"),
        ("UPDATE scores SET value = ? WHERE key = ?", 7),
        ("UPDATE scores SET digest = ? WHERE key = ?", b"\x00" * 16),
        ("UPDATE scores SET digest = ? WHERE key = ?", "none"),
    ],
)
def test_a_damaged_row_is_told_and_can_be_dropped(
    open_file: Callable[[], DiskFile], path: Path, statement: str, value: object
) -> None:
    file = open_file()
    put(file, 1, 2)
    damage(path, statement, value, key(1))
    found = file.read([key(1), key(2)])
    assert found.values == {key(2): b"\x02" * 10}
    assert found.broken == {key(1)}
    file.write(Changes(broken=found.broken), 0, 0)
    assert file.read([key(1)]).broken == set()


def test_rows_that_change_places_are_damaged_rows(open_file: Callable[[], DiskFile], path: Path) -> None:
    file = open_file()
    put(file, 1, 2)
    for new, old in ((key(9), key(1)), (key(1), key(2)), (key(2), key(9))):
        damage(path, "UPDATE scores SET key = ? WHERE key = ?", new, old)
    found = file.read([key(1), key(2)])
    assert (found.values, found.broken) == ({}, {key(1), key(2)})


def test_the_rows_used_longest_ago_are_evicted_and_the_file_shrinks(
    open_file: Callable[[], DiskFile], path: Path
) -> None:
    file = open_file()
    for number in range(2000):
        put(file, number, now_ms=number, size=1000)
    file.write(Changes(used={key(0), key(1)}), 5000, 0)
    full_bytes = file.size_bytes
    assert full_bytes > 2_000_000
    evicted = file.shrink(1_000_000)
    assert file.size_bytes <= 1_000_000
    file.close()  # Puts the log's pages into the file.
    assert path.stat().st_size <= 1_000_000
    left = open_file().read([key(number) for number in range(2000)]).values
    assert len(left) == 2000 - evicted
    assert 500 < len(left) < 1000
    kept = sorted(int.from_bytes(one, "big") for one in left)
    assert kept == [0, 1, *range(2000 - len(left) + 2, 2000)]


def test_a_file_within_its_bound_keeps_all(open_file: Callable[[], DiskFile]) -> None:
    file = open_file()
    put(file, *range(100))
    assert file.shrink(1_000_000) == 0
    assert len(file.read([key(number) for number in range(100)]).values) == 100


def test_a_row_used_shortly_before_is_left_alone(open_file: Callable[[], DiskFile], path: Path) -> None:
    file = open_file()
    put(file, 1, 2, now_ms=1000)
    file.write(Changes(used={key(1)}), 1500, touch_after_ms=600)
    file.write(Changes(used={key(2)}), 1700, touch_after_ms=600)
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT used_ms FROM scores ORDER BY key").fetchall()
    connection.close()
    assert rows == [(1000,), (1700,)]


def test_a_transaction_is_all_or_nothing(open_file: Callable[[], DiskFile]) -> None:
    file = open_file()
    with pytest.raises(sqlite3.Error):
        file.write(Changes({key(1): b"x"}, used={object()}), 0, 0)  # type: ignore[arg-type]
    assert file.read([key(1)]).values == {}
    put(file, 1)
    assert set(file.read([key(1)]).values) == {key(1)}


def test_somebody_elses_database_is_refused_and_left_alone(path: Path) -> None:
    damage(path, "CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(ForeignFileError, match=r"scores\.db is another program's database"):
        DiskFile(path)
    assert path.read_bytes() == before


def test_a_file_of_another_release_is_refused(open_file: Callable[[], DiskFile], path: Path) -> None:
    open_file().close()
    damage(path, "PRAGMA user_version = 99")
    with pytest.raises(ForeignFileError, match="has the format 99, this release writes 1"):
        DiskFile(path)


def test_what_is_no_database_is_an_sqlite_error(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        DiskFile(path)


def test_many_open_a_new_file_at_once(tmp_path: Path) -> None:
    """One that looks while another makes the tables sees all of them or none, whenever that is."""
    for number in range(10):
        path = tmp_path / f"{number}.db"
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda _, path=path: DiskFile(path).close(), range(6)))
