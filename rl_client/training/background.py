"""Work beside the main thread, whose errors are never lost."""

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, Self, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Background:
    """A few threads that work on what is submitted, in order.

    Unlike those of `concurrent.futures` they do not keep the process: a request to a service that is away may go on for
    minutes, and someone who interrupts a run has no use for its answer.

    Attributes:
        closing: Set when nobody waits any more; long work looks at it and ends.
    """

    def __init__(self, threads: int, name: str, *, join: bool = False) -> None:
        """Start the threads.

        Args:
            threads: How many pieces of work run at a time; 0 has each done at once, by the thread that submits it.
            name: Of the threads, and in messages.
            join: Whether `close` waits for work that has begun; it should then look at `closing`.
        """
        self.closing = threading.Event()
        self._name = name
        self._join = join
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._futures: list[Future[Any]] = []
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Have this done.

        Returns:
            Its result or error, once it is there.
        """
        future: Future[T] = Future()
        # What went well needs no more attention; an error that nobody asks for must be told at the end.
        self._futures = [old for old in self._futures if not old.done() or _error_of(old)]
        self._futures.append(future)
        if self._threads:
            self._work.put((future, work))
        else:
            _run(future, work)
        return future

    def close(self, error: BaseException | None = None) -> None:
        """Give up what has not begun, and end the threads.

        Args:
            error: Why the caller ends, if by an error: errors of this work are noted on it. They are logged otherwise.
        """
        self.closing.set()
        for future in self._futures:
            future.cancel()
        for _ in self._threads:
            self._work.put(None)
        if self._join:
            for thread in self._threads:
                thread.join()
        for found in filter(None, map(_error_of, self._futures)):
            if error is None:
                logger.warning("%s failed, and nobody waits for it: %s: %s", self._name, type(found).__name__, found)
            elif found is not error:
                error.add_note(f"meanwhile {self._name} failed: {type(found).__name__}: {found}")

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            _run(*item)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(error)


def _run(future: "Future[T]", work: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
        future.set_exception(error)
    else:
        future.set_result(result)


def _error_of(future: "Future[Any]") -> BaseException | None:
    """How it failed; giving it up is no failure."""
    error = future.exception() if future.done() and not future.cancelled() else None
    return None if isinstance(error, CancelledError) else error
