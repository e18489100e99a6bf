import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from reward_service.cache import disk_store
from reward_service.cache.disk_file import DiskFile, ForeignFileError
from reward_service.cache.disk_store import DiskStore

TIMEOUT_S = 20.0
MIB = 1024 * 1024


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


class Telemetry:
    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self._lock = threading.Lock()

    def disk_event(self, event: str, count: int) -> None:
        with self._lock:
            self.events[event] += count


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scores.db"


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def make_store(path: Path, telemetry: Telemetry) -> Iterator[Callable[..., DiskStore]]:
    made: list[DiskStore] = []

    def make(max_bytes: int = 100 * MIB, **options: Any) -> DiskStore:
        made.append(DiskStore(path, max_bytes, telemetry, **options))
        return made[-1]

    yield make
    for store in made:
        store.close(TIMEOUT_S)


def read(store: DiskStore, *numbers: int) -> dict[bytes, bytes]:
    return store.read([key(number) for number in numbers]).result(TIMEOUT_S)


def test_values_outlive_the_store(make_store: Callable[..., DiskStore], telemetry: Telemetry) -> None:
    store = make_store()
    assert read(store, 1) == {}
    for number in range(1000):
        store.put(key(number), str(number).encode())
    store.close(TIMEOUT_S)
    later = make_store()
    assert read(later, 7, 999, 1000) == {key(7): b"7", key(999): b"999"}
    assert (telemetry.events["written"], telemetry.events["found"]) == (1000, 2)
    assert later.size_bytes > 40_000
    assert later.works


def test_a_closed_store_finds_and_takes_nothing(make_store: Callable[..., DiskStore]) -> None:
    store = make_store()
    store.put(key(1), b"x")
    store.close(TIMEOUT_S)
    store.put(key(2), b"x")
    assert read(store, 1) == {}
    assert read(make_store(), 1, 2) == {key(1): b"x"}


def test_the_least_recently_used_go_first_over_restarts(make_store: Callable[..., DiskStore]) -> None:
    now_s = [1_000_000.0]

    def write(store: DiskStore, numbers: range) -> None:
        for number in numbers:
            store.put(key(number), bytes(1800))
        assert store.flush(TIMEOUT_S)
        now_s[0] += 100.0

    first = make_store(2 * MIB, clock=lambda: now_s[0])
    write(first, range(400))
    write(first, range(400, 800))
    first.close(TIMEOUT_S)
    second = make_store(2 * MIB, clock=lambda: now_s[0])
    read(second, *range(100))
    second.touch(key(100))
    assert second.flush(TIMEOUT_S)
    write(second, range(800, 1100))
    assert second.size_bytes <= 2 * MIB
    left = {int.from_bytes(one, "big") for one in read(second, *range(1100))}
    assert left >= {*range(101), *range(800, 1100)}, "what was read or touched is as good as new"
    assert not left & {*range(101, 200)}


def test_a_damaged_row_is_dropped_counted_and_told(
    make_store: Callable[..., DiskStore], telemetry: Telemetry, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store()
    for number in (1, 2):
        store.put(key(number), b"value")
    assert store.flush(TIMEOUT_S)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE scores SET value = ? WHERE key = ?", (b"valuf", key(1)))
    connection.commit()
    assert read(store, 1, 2) == {key(2): b"value"}
    assert telemetry.events["corrupt"] == 1
    assert "1 damaged rows, dropped" in caplog.text
    assert store.flush(TIMEOUT_S)
    assert connection.execute("SELECT count(*) FROM scores").fetchone() == (1,)
    connection.close()
    store.put(key(1), b"value")
    assert store.flush(TIMEOUT_S)
    assert read(store, 1) == {key(1): b"value"}
    assert store.works


def test_a_disk_that_fails_is_left_alone_for_a_while_and_then_tried_again(
    make_store: Callable[..., DiskStore],
    telemetry: Telemetry,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    path.write_bytes(b"no database at all" * 100)
    store = make_store()
    assert not store.works
    store.put(key(1), b"x")
    assert read(store, 1) == {}
    assert telemetry.events == {"error": 1, "dropped": 1}
    assert caplog.text.count("scores are not kept on disk: file is not a database") == 1
    monkeypatch.setattr(disk_store, "RETRY_S", 0.0)
    assert read(store, 1) == {}
    assert telemetry.events["error"] == 2, "it was tried again"
    assert caplog.text.count("scores are not kept on disk") == 1, "one fault is told once"
    path.unlink()
    store.put(key(2), b"y")
    assert store.flush(TIMEOUT_S)
    assert read(store, 1, 2) == {key(2): b"y"}
    assert store.works
    assert "works again" in caplog.text


def test_a_file_that_breaks_while_it_is_used_ends_in_nothing_found(
    make_store: Callable[..., DiskStore], telemetry: Telemetry, path: Path
) -> None:
    store = make_store()
    for number in range(2000):
        store.put(key(number), bytes(500))
    store.close(TIMEOUT_S)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    broken = make_store()
    assert read(broken, 3) == {}
    assert not broken.works
    broken.put(key(1), b"x")
    assert broken.flush(TIMEOUT_S)
    assert telemetry.events["error"] >= 1


def test_a_writer_that_is_too_slow_drops_what_is_over_the_bound(
    make_store: Callable[..., DiskStore], telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release = threading.Event(), threading.Event()
    write = DiskFile.write

    def held(self: DiskFile, *arguments: Any) -> None:
        entered.set()
        assert release.wait(TIMEOUT_S)
        write(self, *arguments)

    monkeypatch.setattr(DiskFile, "write", held)
    monkeypatch.setattr(disk_store, "MAX_PENDING_BYTES", 100)
    store = make_store()
    store.put(key(1), b"x")
    assert entered.wait(TIMEOUT_S)
    for number in range(2, 6):
        store.put(key(number), b"x" * 10)  # 42 bytes with its key: two fit.
    assert telemetry.events["dropped"] == 2
    release.set()
    assert store.flush(TIMEOUT_S)
    assert set(read(store, *range(9))) == {key(1), key(2), key(3)}


def test_readings_that_pile_up_are_answered_with_nothing(
    make_store: Callable[..., DiskStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release = threading.Event(), threading.Event()
    original = DiskFile.read

    def held(self: DiskFile, keys: Any) -> Any:
        entered.set()
        assert release.wait(TIMEOUT_S)
        return original(self, keys)

    store = make_store()
    store.put(key(1), b"x")
    assert store.flush(TIMEOUT_S)
    monkeypatch.setattr(DiskFile, "read", held)
    monkeypatch.setattr(disk_store, "MAX_PENDING_READS", 2)
    waiting = [store.read([key(1)]), store.read([key(1)])]
    assert entered.wait(TIMEOUT_S)
    assert read(store, 1) == {}
    release.set()
    assert [one.result(TIMEOUT_S) for one in waiting] == [{key(1): b"x"}] * 2
    assert read(store, 1) == {key(1): b"x"}


def test_what_nobody_foresaw_ends_in_nothing_found_too(
    make_store: Callable[..., DiskStore],
    telemetry: Telemetry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    store = make_store()
    monkeypatch.setattr(DiskFile, "read", broken)
    monkeypatch.setattr(DiskFile, "write", broken)
    monkeypatch.setattr(disk_store, "RETRY_S", 0.0)
    assert read(store, 1) == {}
    store.put(key(1), b"x")
    assert store.flush(TIMEOUT_S)
    assert not store.works
    assert "Traceback" in caplog.text
    monkeypatch.undo()
    monkeypatch.setattr(disk_store, "RETRY_S", 0.0)
    store.put(key(2), b"y")
    assert store.flush(TIMEOUT_S)
    assert read(store, 2) == {key(2): b"y"}, "its threads live on"


def test_two_stores_of_one_file_begin_at_once_and_see_each_others_values(make_store: Callable[..., DiskStore]) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: make_store(), range(4)))
    for number, store in enumerate(stores):
        for place in range(100):
            store.put(key(1000 * number + place), bytes([number]))
    assert all(store.flush(TIMEOUT_S) for store in stores)
    wanted = [1000 * number + place for number in range(4) for place in range(100)]
    for store in stores:
        assert read(store, *wanted) == {key(one): bytes([one // 1000]) for one in wanted}
        assert store.works


def test_somebody_elses_database_is_refused(make_store: Callable[..., DiskStore], path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(ForeignFileError):
        make_store()
