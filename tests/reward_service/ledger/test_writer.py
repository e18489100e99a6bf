"""Writing behind: what is recorded when the database is there, away, full or lost."""

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DataError, OperationalError

from reward_service.ledger import writer as writer_module
from reward_service.ledger.answer import ANSWER_BYTES, Answer, Asker
from reward_service.ledger.database import Database, ForeignDatabaseError, database_url
from reward_service.ledger.retention import Retention
from reward_service.ledger.rows import Rows
from reward_service.ledger.tables import items, scores
from reward_service.ledger.writer import LedgerWriter

TIMEOUT_S = 20.0
NOW_S = 120.5
MUCH = 10**9


class Flaky(Database):
    """A real database that fails when it is told to."""

    away = False
    refused_request: str | None = None
    writes = 0
    gate: threading.Event | None = None

    def write(self, rows: Rows) -> None:
        self.writes += 1
        if self.gate is not None:
            assert self.gate.wait(TIMEOUT_S)
        if self.away:
            raise OperationalError("INSERT", {}, Exception("gone\naway"))
        if any(row["request_id"] == self.refused_request for row in rows.items):
            raise DataError("INSERT", {}, Exception("cannot be stored"))
        super().write(rows)


class Rig:
    """A writer on a SQLite file."""

    def __init__(self, path: Path, telemetry: Any, max_pending_bytes: int, retention: Retention) -> None:
        self.database = Flaky(database_url(path))
        self.telemetry = telemetry
        self.writer = LedgerWriter(
            self.database,
            retention,
            telemetry,
            texts=False,
            max_pending_bytes=max_pending_bytes,
            clock=lambda: NOW_S,
        )
        self.path = path

    def record(self, answer: Answer, request_id: str = "r") -> None:
        asker = Asker(request_id, "job", "run", 7)
        self.writer.record(asker, answer.item_ids, answer.items, answer.models)

    def rows(self) -> list[tuple[str, str]]:
        """Request and item of each row of items, in the order of recording."""
        with Database(database_url(self.path), reads_only=True).engine.connect() as connection:
            query = select(items.c.request_id, items.c.item_id).order_by(items.c.time_ms, items.c.seq)
            return [(request, item) for request, item in connection.execute(query)]


@pytest.fixture
def make_rig(tmp_path: Path, telemetry: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rig]]:
    monkeypatch.setattr(writer_module, "FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(writer_module, "LAST_RETRY_S", 0.01)
    made: list[Rig] = []

    def make(max_pending_bytes: int = MUCH, max_age_ms: int | None = None, max_bytes: int = MUCH) -> Rig:
        retention = Retention(max_age_ms, max_bytes)
        made.append(Rig(tmp_path / "ledger.db", telemetry, max_pending_bytes, retention))
        return made[-1]

    yield make
    for rig in made:
        rig.writer.close(TIMEOUT_S)


def test_what_was_recorded_is_written(make_rig: Callable[..., Rig], make_answer: Any, half_failed: Answer) -> None:
    rig = make_rig()
    rig.record(make_answer(items=2), "first")
    rig.record(half_failed, "second")
    assert rig.writer.flush(TIMEOUT_S)
    assert rig.rows() == [("first", "0"), ("first", "1"), ("second", "a"), ("second", "c")]
    assert rig.telemetry.scores == {"written": 7, "expired": 0}
    assert (rig.writer.pending_scores, rig.writer.pending_bytes, rig.writer.works) == (0, 0, True)
    with rig.database.engine.connect() as connection:
        assert connection.execute(select(scores.c.time_ms).distinct()).scalars().all() == [120_500]


def test_answers_without_scores_are_none(make_rig: Callable[..., Rig], half_failed: Answer) -> None:
    rig = make_rig()
    failed = [type(model)(model.card, model.results[1:2]) for model in half_failed.models]
    rig.writer.record(Asker("r"), ["b"], half_failed.items[1:2], failed)
    assert rig.writer.flush(TIMEOUT_S)
    assert rig.rows() == []


def test_many_go_in_batches_that_form_while_one_is_written(make_rig: Callable[..., Rig], make_answer: Any) -> None:
    rig = make_rig()
    rig.database.gate = threading.Event()
    for number in range(301):
        rig.record(make_answer(items=10), f"{number:03}")
    assert rig.writer.pending_scores == 301 * 20
    rig.database.gate.set()
    assert rig.writer.flush(TIMEOUT_S)
    assert [request for request, _ in rig.rows()] == [f"{number:03}" for number in range(301) for _ in range(10)]
    assert rig.database.writes <= 8, "one that was under way, and batches of 50 answers"


def test_a_close_writes_what_waits(make_rig: Callable[..., Rig], make_answer: Any) -> None:
    rig = make_rig()
    rig.database.gate = threading.Event()
    for number in range(120):
        rig.record(make_answer(items=10), str(number))
    closing = threading.Thread(target=rig.writer.close, args=(TIMEOUT_S,))
    closing.start()
    rig.database.gate.set()
    closing.join(TIMEOUT_S)
    assert len(rig.rows()) == 1200
    assert rig.telemetry.scores["dropped"] == 0
    rig.record(make_answer())
    assert rig.telemetry.scores["dropped"] == 2, "nobody would write it any more"


def test_a_lost_database_costs_nothing_that_fits(
    make_rig: Callable[..., Rig], make_answer: Any, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rig = make_rig()
    rig.database.away = True
    with caplog.at_level(logging.INFO):
        for number in range(30):
            rig.record(make_answer(items=10), f"{number:02}")
        until(lambda: rig.telemetry.failures >= 5)
        assert not rig.writer.works
        assert rig.writer.pending_scores == 600
        rig.database.away = False
        assert rig.writer.flush(TIMEOUT_S)
    assert rig.writer.works
    assert [request for request, _ in rig.rows()] == [f"{number:02}" for number in range(30) for _ in range(10)]
    assert rig.telemetry.scores["dropped"] == 0
    told = [record.message for record in caplog.records if record.name == writer_module.logger.name]
    name = rig.database.name
    assert told == [
        f"the ledger in {name} fails; scores wait in memory to be recorded: gone away",
        f"the ledger in {name} works again",
    ]


def test_what_is_over_the_bound_is_dropped_and_counted(
    make_rig: Callable[..., Rig], make_answer: Any, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    size = make_answer().size_bytes
    assert size > ANSWER_BYTES
    rig = make_rig(max_pending_bytes=10 * size + 1)
    rig.database.away = True
    with caplog.at_level(logging.ERROR):
        for number in range(15):
            rig.record(make_answer(), f"{number:02}")
        assert rig.telemetry.scores["dropped"] == 10
        assert rig.writer.pending_bytes == 10 * size
        until(lambda: rig.telemetry.failures > 0)
        rig.database.away = False
        assert rig.writer.flush(TIMEOUT_S)
    rig.record(make_answer(), "15")
    assert rig.writer.flush(TIMEOUT_S)
    assert [request for request, _ in rig.rows()] == [f"{number:02}" for number in (*range(10), 15)]
    told = [record.message for record in caplog.records if "dropped" in record.message]
    assert [line.partition(": ")[2] for line in told] == [
        "2 scores were dropped, not recorded",
        "8 scores were dropped, not recorded",
    ]


def test_one_answer_that_cannot_be_stored_goes_alone(make_rig: Callable[..., Rig], make_answer: Any) -> None:
    rig = make_rig()
    rig.database.refused_request = "3"
    rig.database.gate = threading.Event()
    for number in range(6):
        rig.record(make_answer(), str(number))
    rig.database.gate.set()
    assert rig.writer.flush(TIMEOUT_S)
    assert [request for request, _ in rig.rows()] == ["0", "1", "2", "4", "5"]
    assert rig.telemetry.scores["dropped"] == 2
    assert rig.telemetry.failures == 0


def test_a_text_that_no_database_takes_goes_alone(make_rig: Callable[..., Rig], make_answer: Any) -> None:
    rig = make_rig()
    rig.record(make_answer(), "good")
    rig.record(make_answer(), "\ud800")
    rig.record(make_answer(), "good too")
    assert rig.writer.flush(TIMEOUT_S)
    assert [request for request, _ in rig.rows()] == ["good", "good too"]
    assert rig.telemetry.scores["dropped"] == 2


def test_an_end_without_a_database_drops_and_counts(make_rig: Callable[..., Rig], make_answer: Any) -> None:
    rig = make_rig()
    rig.database.away = True
    for number in range(4):
        rig.record(make_answer(), str(number))
    rig.writer.close(0.05)
    assert rig.telemetry.scores["dropped"] == 8
    assert rig.writer.pending_scores == 0
    assert rig.rows() == []


def test_it_comes_back_also_when_nothing_waits(
    tmp_path: Path, telemetry: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(writer_module, "LAST_RETRY_S", 0.01)
    folder = tmp_path / "mounted"
    database = Database(database_url(folder / "ledger.db"))
    ledger = LedgerWriter(database, Retention(None, MUCH), telemetry, texts=False, max_pending_bytes=MUCH)
    try:
        assert not ledger.works
        folder.mkdir()
        until(lambda: ledger.works)
    finally:
        ledger.close(TIMEOUT_S)


def test_a_foreign_database_is_refused_at_the_start(tmp_path: Path, telemetry: Any) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(ForeignDatabaseError):
        LedgerWriter(
            Database(database_url(path)), Retention(None, MUCH), telemetry, texts=False, max_pending_bytes=MUCH
        )


def test_what_is_too_old_goes_while_it_runs(make_rig: Callable[..., Rig], make_answer: Any, until: Any) -> None:
    first = make_rig()
    first.record(make_answer())
    first.writer.close(TIMEOUT_S)
    assert len(first.rows()) == 1
    second = make_rig(max_age_ms=1)
    second.writer._clock = lambda: NOW_S + 3600
    second.writer._expire_at_s = 0.0
    second.record(make_answer())
    until(lambda: second.telemetry.scores["expired"] == 2)
    assert second.writer.flush(TIMEOUT_S)
    assert len(second.rows()) == 1
