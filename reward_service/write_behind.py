"""Writing off the request path: one thread writes what others leave for it, to a place that may fail."""

import logging
import threading
import time
from abc import ABC, abstractmethod


class WriteBehind(ABC):
    """A thread that writes behind. Nobody who leaves something for it waits for it or notices a fault.

    A subclass keeps what waits, guarded by `_changed`, and ends its own `__init__` with `_start`.

    Args:
        thread_name: The thread's.
        place: What it writes to, in words, for the log.
        cost: What a fault costs, in words.
        known_faults: Of that place; with other ones the log shows where they came from.
        log: Is told of the first fault of a row, and of their end.
    """

    def __init__(
        self,
        thread_name: str,
        *,
        place: str,
        cost: str,
        known_faults: tuple[type[Exception], ...],
        log: logging.Logger,
    ) -> None:
        self._place = place
        self._cost = cost
        self._known_faults = known_faults
        self._log = log
        self._changed = threading.Condition()
        self._closing = False
        self._failures = 0
        self._failed_at_s = 0.0
        self._writer = threading.Thread(target=self._write_behind, name=thread_name, daemon=True)

    @property
    def works(self) -> bool:
        """Whether the last thing that was tried went well."""
        return self._failures == 0

    def flush(self, timeout_s: float) -> bool:
        """Wait until nothing waits to be written any more; False if that is not in time."""
        with self._changed:
            return self._changed.wait_for(self._is_done, timeout_s)

    @abstractmethod
    def _write_behind(self) -> None:
        """The thread's work; ends once `_closing` is set and what waits is written."""

    @abstractmethod
    def _is_done(self) -> bool:
        """Whether nothing waits or is being written. Called with `_changed` held."""

    def _start(self) -> None:
        self._writer.start()

    def _stop(self, timeout_s: float) -> bool:
        """Have the thread write what waits and end; False if somebody else did that before."""
        with self._changed:
            if self._closing:
                return False
            self._closing = True
            self._changed.notify_all()
        self._writer.join(timeout_s)
        return True

    def _fault(self, error: Exception, shown: object) -> None:
        """Something failed; `shown` is the error in the words that a log may hold."""
        if not self._failures:
            known = isinstance(error, self._known_faults)
            self._log.error("%s fails; %s: %s", self._place, self._cost, shown, exc_info=None if known else error)
        self._failed_at_s = time.monotonic()
        self._failures += 1

    def _success(self) -> None:
        """Something went well."""
        if self._failures:
            self._log.info("%s works again", self._place)
            self._failures = 0
