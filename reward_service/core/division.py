"""One backend and its lanes: which of them runs a batch."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from reward_service.core.backend import Backend, DivisibleBackend


class Division:
    """A backend as a whole, and as lanes where it can be divided.

    Where several batches are there to be run, lanes run more of them than the whole would. What comes alone is ready
    sooner with all threads on it, and then the whole runs it.

    Attributes:
        whole: The backend with all its threads.
        lanes: Each runs batches of its own; the whole itself where it is not divided.
    """

    def __init__(self, whole: Backend) -> None:
        self.whole = whole
        self.lanes = (isinstance(whole, DivisibleBackend) and tuple(whole.lanes())) or (whole,)
        self._running = 0
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, lane: Backend, *, is_alone: bool) -> Iterator[tuple[Backend, int]]:
        """Run one batch.

        Args:
            lane: Whose turn it is.
            is_alone: Whether there is nothing for the other lanes to do.

        Returns:
            The backend to run it on, for as long as the context lasts, and how many lanes' threads it uses.
        """
        with self._lock:
            self._running += 1
            is_whole = is_alone and self._running == 1
        try:
            yield (self.whole, len(self.lanes)) if is_whole else (lane, 1)
        finally:
            with self._lock:
                self._running -= 1

    @property
    def runtime(self) -> str:
        """See `core.backend.Backend`."""
        return self.whole.runtime

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The whole and all the lanes, each once."""
        return tuple(dict.fromkeys((self.whole, *self.lanes)))

    def close(self) -> None:
        """Free them all."""
        for backend in self.backends:
            backend.close()
