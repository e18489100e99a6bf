"""SIGINT and SIGTERM end a run at the end of its step."""

import signal
import time
from types import FrameType, TracebackType
from typing import Self

EXIT_INTERRUPTED = 75
"""Exit status of a run that was told to stop and can be resumed (sysexits.h: EX_TEMPFAIL, try again later)."""

SAME_SIGNAL_S = 2.0
"""A SIGINT so soon after the first signal is that one again: launchers pass on what their processes had already."""


class StopSignal:
    """Within it the first SIGINT or SIGTERM is only noted; a later SIGINT, from someone who will not wait, interrupts.

    A later SIGTERM asks for what is under way and changes nothing, since launchers and schedulers repeat theirs;
    SIGKILL ends the process at once and costs what came after the last checkpoint.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._since_s = 0.0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
            self._since_s = time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._since_s > SAME_SIGNAL_S:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
