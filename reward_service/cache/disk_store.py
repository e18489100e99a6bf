"""Values on disk, off the request path: one thread reads, one writes behind. It may fail; nobody who asks notices.

Every fault of the file or the disk ends in "not there": it is logged once, counted, and after a while tried again.
"""

import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol, TypeVar

from reward_service.cache.disk_file import Changes, DiskFile, ForeignFileError
from reward_service.write_behind import WriteBehind

logger = logging.getLogger(__name__)

BATCH_VALUES = 256
"""New values of one transaction. Batches form while the one before is written; there is no timer."""

MAX_PENDING_BYTES = 16 * 1024 * 1024
"""Values that may wait to be written; more are dropped, as a disk that is too slow may not fill the memory."""

MAX_PENDING_USES = 65536
"""Keys that may wait to be marked as used; more are forgotten."""

MAX_PENDING_READS = 256
"""Readings that may wait; with more, the answer is that nothing is there."""

RETRY_S = 30.0
"""After a fault the disk is left alone for so long."""

TOUCH_AFTER_S = 60.0
"""How exact the time of last use is, by which rows are evicted; more exact costs more writing."""

DISK_FAULTS = (sqlite3.Error, OSError)
FAULTS = (Exception,)
"""Whatever a damaged file leads to, nobody who asks may notice, and the threads live on."""

R = TypeVar("R")


class DiskTelemetry(Protocol):
    """Is told what happened on disk. Called from several threads."""

    def disk_event(self, event: str, count: int) -> None:
        """What became of `count` values, or of one reading or writing.

        Args:
            event: `written`, `found`, `dropped` (not written: the disk fails or is too slow), `corrupt`, `evicted`;
                `error` (a reading or writing failed), `late` (a reading was not waited for).
            count: How many.
        """
        ...


class DiskStore(WriteBehind):
    """Keeps values by key in one file, which other processes may share. Safe to use from several threads.

    Args:
        path: The file.
        max_bytes: Of its rows and their indexes; the least recently used go first.
        telemetry: Is told what happens.
        clock: Seconds since 1970: uses are compared between processes and over restarts.

    Raises:
        ForeignFileError: The file holds something else.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        telemetry: DiskTelemetry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            "cache-write",
            place=f"the cache in {path}",
            cost="scores are not kept on disk",
            known_faults=(*DISK_FAULTS, ForeignFileError),
            log=logger,
        )
        self._path = path
        self._max_bytes = max_bytes
        self._telemetry = telemetry
        self._clock = clock
        self._values: deque[tuple[bytes, bytes]] = deque()
        self._values_bytes = 0
        self._used: set[bytes] = set()
        self._broken: set[bytes] = set()
        self._writing = False
        self._size_bytes = 0
        self._reads = 0
        self._reading: DiskFile | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="cache-read")
        try:
            self._reader.submit(self._open).result()
        except ForeignFileError:
            self._reader.shutdown()
            raise
        self._start()

    @property
    def size_bytes(self) -> int:
        """What the rows and their indexes took after the last writing."""
        return self._size_bytes

    def read(self, keys: Sequence[bytes]) -> "Future[dict[bytes, bytes]]":
        """The values of those keys that are there and sound; nothing where the disk fails."""
        if self._rests() or self._closing or self._reads >= MAX_PENDING_READS:
            nothing: Future[dict[bytes, bytes]] = Future()
            nothing.set_result({})
            return nothing
        self._reads += 1
        return self._reader.submit(self._read, keys)

    def put(self, key: bytes, value: bytes) -> None:
        """Write a value behind."""
        with self._changed:
            size = len(key) + len(value)
            if self._rests() or self._closing or self._values_bytes + size > MAX_PENDING_BYTES:
                self._telemetry.disk_event("dropped", 1)
                return
            self._values.append((key, value))
            self._values_bytes += size
            self._changed.notify_all()

    def touch(self, key: bytes) -> None:
        """Mark a value as used now, behind."""
        with self._changed:
            if not self._rests() and len(self._used) < MAX_PENDING_USES:
                self._used.add(key)
                self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Write what waits, then end the threads and close the file."""
        if not self._stop(timeout_s):
            return
        wait([self._reader.submit(self._close_reading)], timeout_s)
        self._reader.shutdown(wait=False)

    def _is_done(self) -> bool:
        return not self._writing and not self._has_pending()

    def _has_pending(self) -> bool:
        return bool(self._values or self._used or self._broken)

    def _rests(self) -> bool:
        return not self.works and time.monotonic() - self._failed_at_s < RETRY_S

    def _tried(self, work: Callable[[], R], faults: tuple[type[Exception], ...] = FAULTS) -> R | None:
        """The result, or None where the disk fails."""
        try:
            result = work()
        except faults as error:
            self._telemetry.disk_event("error", 1)
            self._fault(error, error)
            return None
        if not self._rests():
            self._success()
        return result

    def _open(self) -> None:
        """At the start: a file of somebody else's is refused, a disk that fails is not."""
        self._reading = self._tried(lambda: DiskFile(self._path), DISK_FAULTS)
        if self._reading is not None:
            self._size_bytes = self._tried(lambda: self._opened().size_bytes) or 0

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        try:
            if self._rests():
                return {}
            found = self._tried(lambda: self._opened().read(keys))
        finally:
            self._reads -= 1
        if found is None:
            self._close_reading()
            return {}
        if found.broken:
            logger.warning("the cache in %s: %d damaged rows, dropped", self._path, len(found.broken))
            self._telemetry.disk_event("corrupt", len(found.broken))
        self._telemetry.disk_event("found", len(found.values))
        with self._changed:
            self._used.update(found.values)
            self._broken.update(found.broken)
            self._changed.notify_all()
        return found.values

    def _opened(self) -> DiskFile:
        if self._reading is None:
            self._reading = DiskFile(self._path)
        return self._reading

    def _close_reading(self) -> None:
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def _write_behind(self) -> None:
        file: DiskFile | None = None
        while (changes := self._next_changes()) is not None:
            opened = file
            file = None if self._rests() else self._tried(lambda: self._written(opened, changes))  # noqa: B023
            if file is None:
                self._telemetry.disk_event("dropped", len(changes.values))
                if opened is not None:
                    opened.close()
        if file is not None:
            file.close()
        with self._changed:
            self._writing = False
            self._changed.notify_all()

    def _next_changes(self) -> Changes | None:
        """The next batch; None once the store is closed and all is written."""
        with self._changed:
            self._writing = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closing or self._has_pending())
            if not self._has_pending():
                return None
            some = [self._values.popleft() for _ in range(min(BATCH_VALUES, len(self._values)))]
            self._values_bytes -= sum(len(key) + len(value) for key, value in some)
            changes = Changes(dict(some), self._used, self._broken)
            self._used, self._broken = set(), set()
            self._writing = True
            return changes

    def _written(self, file: DiskFile | None, changes: Changes) -> DiskFile:
        if file is None:
            file = DiskFile(self._path)
        try:
            file.write(changes, round(self._clock() * 1000), round(TOUCH_AFTER_S * 1000))
            self._telemetry.disk_event("written", len(changes.values))
            self._telemetry.disk_event("evicted", file.shrink(self._max_bytes))
            self._size_bytes = file.size_bytes
        except BaseException:
            file.close()
            raise
        return file
