"""Who waits for work of a queue, and who of them is woken: no more than there is work for, and who is idle first.

As long as there is work, one of them is awake: who adds it wakes one; who takes some and leaves some, or leaves it all
to one that is idle, wakes the next.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Taker:
    """One that waits.

    Args:
        is_idle: Whether it would begin at once with what it is given.
        lock: The queue's.
    """

    def __init__(self, is_idle: Callable[[], bool], lock: threading.Lock) -> None:
        self.is_idle = is_idle
        self.errand: Callable[[], None] | None = None
        """What it is to do before it takes anything; there until it is done."""
        self._lock = lock
        self._woken = threading.Condition(lock)

    def sleep(self) -> None:
        """Give the lock away until it is woken."""
        self._woken.wait()

    def wake(self) -> None:
        """End its sleep, if it sleeps."""
        self._woken.notify()

    def run_errand(self) -> None:
        """Do it, without the lock."""
        assert self.errand is not None  # noqa: S101 - asked before
        self._lock.release()
        try:
            self.errand()
        finally:
            self._lock.acquire()
            self.errand = None


class Takers:
    """Those that wait. All that is done with them is done under the lock of the queue.

    Args:
        lock: It.
        has_work: Whether there is anything to take.
    """

    def __init__(self, lock: threading.Lock, has_work: Callable[[], bool]) -> None:
        self._lock = lock
        self._has_work = has_work
        self._present: list[Taker] = []

    def __len__(self) -> int:
        return len(self._present)

    @contextmanager
    def one_more(self, is_idle: Callable[[], bool]) -> Iterator[Taker]:
        """One that waits for as long as the context lasts; whatever it leaves is told to the next."""
        taker = Taker(is_idle, self._lock)
        self._present.append(taker)
        try:
            yield taker
        finally:
            self._present.remove(taker)
            if self._has_work():
                self.wake_one()

    def wake_one(self) -> None:
        """There is something to take: wake one that is idle, or if none is, the one that waits for the longest."""
        if taker := self.idle() or next(iter(self._present), None):
            taker.wake()

    def send(self, errand: Callable[[], None]) -> bool:
        """Wake one that is free to do something; False if none is."""
        taker = self.free()
        if taker is None:
            return False
        taker.errand = errand
        taker.wake()
        return True

    def wake_all(self) -> None:
        """There will be nothing more."""
        for taker in self._present:
            taker.wake()

    def free(self) -> Taker | None:
        """One that is idle and not on an errand."""
        return next((taker for taker in self._present if taker.errand is None and taker.is_idle()), None)

    def idle(self) -> Taker | None:
        """One that would begin at once."""
        return next((taker for taker in self._present if taker.is_idle()), None)
