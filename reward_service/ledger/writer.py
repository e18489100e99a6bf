"""Scores on their way to the database, off the request path: one thread writes behind. Nobody who asks notices a fault.

While the database is away, what was answered waits in memory, up to a bound; what is over it is dropped and counted.
The thread comes back by itself, and writes nothing twice.
"""

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import DataError, SQLAlchemyError

from reward_service.domain import ModelOutcome, TextItem
from reward_service.ledger.answer import Answer, Asker, LedgerTelemetry
from reward_service.ledger.database import Database, ForeignDatabaseError
from reward_service.ledger.drop_log import DropLog
from reward_service.ledger.retention import Retention
from reward_service.ledger.rows import Rows, make_rows
from reward_service.write_behind import WriteBehind

logger = logging.getLogger(__name__)

BATCH_SCORES = 1000
"""Scores of one transaction, about."""

GATHER_S = 0.5
"""How long scores may wait for others to be written with: a transaction costs as much as a hundred of them."""

FIRST_RETRY_S, LAST_RETRY_S = 0.25, 5.0
"""How long a database that fails is left alone: twice as long each time, up to a bound."""

EXPIRE_EVERY_S = 60.0
"""How often it is looked what may not stay."""

WRITER_BITS = 62
"""Of the random number that names a process in its rows' keys."""

DATA_FAULTS = (DataError, ValueError, TypeError, OverflowError)
"""Faults of what is to be written: it will not be taken another time either."""

KNOWN_FAULTS = (SQLAlchemyError, OSError, ForeignDatabaseError)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An answer that waits, and what it counts as."""

    answer: Answer
    scores: int
    size_bytes: int
    first_seq: int
    since_s: float


class LedgerWriter(WriteBehind):
    """Writes answers behind. Safe to use from several threads.

    Args:
        database: Belongs to the writer from now on.
        retention: What may stay in it.
        telemetry: Is told what happens.
        texts: Whether texts are recorded.
        max_pending_bytes: Of what waits, in memory.
        clock: Seconds since 1970.

    Raises:
        ForeignDatabaseError: The database is somebody else's.
    """

    def __init__(
        self,
        database: Database,
        retention: Retention,
        telemetry: LedgerTelemetry,
        *,
        texts: bool,
        max_pending_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            "ledger-write",
            place=f"the ledger in {database.name}",
            cost="scores wait in memory to be recorded",
            known_faults=KNOWN_FAULTS,
            log=logger,
        )
        self._database = database
        self._retention = retention
        self._telemetry = telemetry
        self._texts = texts
        self._max_pending_bytes = max_pending_bytes
        self._clock = clock
        self._id = secrets.randbits(WRITER_BITS)
        self._next_seq = 0
        self._waiting: deque[_Waiting] = deque()
        self._pending_scores = 0
        self._pending_bytes = 0
        self._drops = DropLog(database.name)
        self._gave_up = False
        self._flushes = 0
        self._expire_at_s = time.monotonic()
        try:
            self._database.prepare()
        except ForeignDatabaseError:
            self._database.close()
            raise
        except Exception as error:  # noqa: BLE001  # Whatever a damaged or lost database leads to, serving goes on.
            self._failed(error)
        self._start()

    @property
    def pending_scores(self) -> int:
        """How many wait to be written."""
        return self._pending_scores

    @property
    def pending_bytes(self) -> int:
        """What they take in memory, about."""
        return self._pending_bytes

    def record(
        self, asker: Asker, item_ids: Sequence[str], items: Sequence[TextItem], models: Sequence[ModelOutcome]
    ) -> None:
        """See `answer.Ledger`."""
        now_ms = round(self._clock() * 1000)
        answer = Answer(now_ms, asker, tuple(item_ids), tuple(items), tuple(models))
        scores, size = answer.scores, answer.size_bytes
        if not scores:
            return
        with self._changed:
            if self._closing or self._pending_bytes + size > self._max_pending_bytes:
                self._drop(scores)
                return
            was_idle = not self._waiting
            self._waiting.append(_Waiting(answer, scores, size, self._next_seq, time.monotonic()))
            self._next_seq += len(answer.items)
            self._pending_scores += scores
            self._pending_bytes += size
            if was_idle or self._pending_scores >= BATCH_SCORES:
                self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was recorded is written; False if it is not in time."""
        with self._changed:
            self._flushes += 1
            self._changed.notify_all()
            try:
                return super().flush(timeout_s)
            finally:
                self._flushes -= 1

    def close(self, timeout_s: float) -> None:
        """Write what waits, then end the thread and close the database. What is not written in time is dropped."""
        if not self._stop(timeout_s):
            return
        with self._changed:
            self._gave_up = True
            if self._waiting:
                self._drop(self._pending_scores)
                self._forget(len(self._waiting))
            self._drops.tell()
            self._changed.notify_all()

    def _is_done(self) -> bool:
        return not self._waiting

    def _write_behind(self) -> None:
        while self._has_work():
            with self._changed:
                self._drops.tell_if_due()
            if self._failures and not self._tried(self._database.prepare):
                continue
            if batch := self._next_batch():
                self._write(batch)
            # With nothing to write, this is how it is found that the database is there again.
            is_due = time.monotonic() >= self._expire_at_s or (self._failures and not batch)
            if is_due and not self._closing and self._tried(self._expire) and not batch:
                self._works_again()
        self._database.close()

    def _has_work(self) -> bool:
        """Wait until something is to be done; False at the end."""
        with self._changed:
            if self._failures and not self._closing:
                wait_s = min(FIRST_RETRY_S * 2 ** min(self._failures - 1, 10), LAST_RETRY_S)
                self._changed.wait_for(lambda: self._closing, wait_s)
            elif self._failures:
                self._changed.wait_for(lambda: self._gave_up, FIRST_RETRY_S)
            else:
                wait_s = max(0.0, self._expire_at_s - time.monotonic())
                self._changed.wait_for(lambda: self._closing or self._waiting, wait_s)
                if self._waiting:
                    wait_s = self._waiting[0].since_s + GATHER_S - time.monotonic()
                    self._changed.wait_for(self._is_urgent, max(0.0, wait_s))
            return not (self._closing and not self._waiting)

    def _is_urgent(self) -> bool:
        """Whether there is no use in waiting for more."""
        return self._closing or self._flushes > 0 or self._pending_scores >= BATCH_SCORES

    def _next_batch(self) -> list[_Waiting]:
        """The oldest answers; they go on waiting until they are written."""
        with self._changed:
            batch: list[_Waiting] = []
            scores = 0
            for waiting in self._waiting:
                batch.append(waiting)
                scores += waiting.scores
                if scores >= BATCH_SCORES:
                    break
            return batch

    def _write(self, batch: Sequence[_Waiting]) -> None:
        """Write a batch, or leave it waiting where the database fails."""
        try:
            self._database.write(self._rows(batch))
        except DATA_FAULTS as error:
            # What the database refuses must not hold up the rest: each answer on its own.
            if len(batch) == 1:
                logger.error("the ledger in %s cannot hold an answer: %s", self._database.name, _shown(error))
                self._done(batch, "dropped")
                return
            for waiting in batch:
                self._write([waiting])
                if self._failures:
                    return
        except Exception as error:  # noqa: BLE001  # See above.
            self._failed(error)
        else:
            self._works_again()
            self._done(batch, "written")

    def _rows(self, batch: Sequence[_Waiting]) -> Rows:
        rows = Rows()
        for waiting in batch:
            rows.add(make_rows(waiting.answer, self._id, waiting.first_seq, texts=self._texts))
        return rows

    def _done(self, batch: Sequence[_Waiting], event: str) -> None:
        """The oldest answers wait no longer."""
        with self._changed:
            if self._gave_up:  # They are counted as dropped already.
                return
            scores = sum(waiting.scores for waiting in batch)
            if event == "dropped":
                self._drop(scores)
            else:
                self._telemetry.ledger_scores(event, scores)
            self._forget(len(batch))
            self._changed.notify_all()

    def _forget(self, answers: int) -> None:
        for _ in range(answers):
            waiting = self._waiting.popleft()
            self._pending_scores -= waiting.scores
            self._pending_bytes -= waiting.size_bytes

    def _drop(self, scores: int) -> None:
        self._telemetry.ledger_scores("dropped", scores)
        self._drops.add(scores)

    def _expire(self) -> None:
        self._expire_at_s = time.monotonic() + EXPIRE_EVERY_S
        expired, is_done = self._retention.expire(self._database, round(self._clock() * 1000))
        self._telemetry.ledger_scores("expired", expired)
        if not is_done:
            self._expire_at_s = time.monotonic()

    def _tried(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:  # noqa: BLE001  # See above.
            self._failed(error)
            return False
        return True

    def _works_again(self) -> None:
        if self._failures:
            self._success()
            with self._changed:
                self._drops.tell()

    def _failed(self, error: Exception) -> None:
        self._telemetry.ledger_failed()
        self._fault(error, _shown(error))
        self._database.close()  # Broken connections; it opens new ones by itself.


def _shown(error: Exception) -> str:
    """One line without the statement and its values, which may be texts."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
