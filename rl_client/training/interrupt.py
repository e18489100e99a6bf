"""SIGINT and SIGTERM end a run at the end of its step."""

import signal
from types import FrameType, TracebackType
from typing import Self

EXIT_INTERRUPTED = 75
"""Exit status of a run that was told to stop and can be resumed (sysexits.h: EX_TEMPFAIL, try again later)."""


class StopSignal:
    """Within it the first SIGINT or SIGTERM is only noted; the second acts as it always would."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
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
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
