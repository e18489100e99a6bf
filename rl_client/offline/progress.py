"""What bulk scoring shows: a bar with rate and time left on a terminal, a line now and then elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SAY_EVERY_S = 10.0
"""How often a line is printed where there is no terminal."""


class RowProgress:
    """Counts rows. A context manager.

    Args:
        title: What is running.
        done: Rows done before.
        rows: Of the whole data.
    """

    def __init__(self, title: str, *, done: int, rows: int) -> None:
        self._console = Console(stderr=True)
        self._title = title
        self._rows = rows
        self._before = done
        self._done = done
        self._since_s = self._said_s = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(title, total=rows, completed=done, rate="")

    def add(self, rows: int) -> None:
        """Count rows that are on disk."""
        self._done += rows
        now_s = time.monotonic()
        rate = (self._done - self._before) / max(now_s - self._since_s, 1e-9)
        self._progress.update(self._task, completed=self._done, rate=f"{rate:.0f} rows/s")
        if not self._console.is_terminal and (self._done >= self._rows or now_s - self._said_s >= SAY_EVERY_S):
            self._said_s = now_s
            left_s = (self._rows - self._done) / rate
            self.say(f"{self._title} {self._done}/{self._rows}  {rate:.0f} rows/s  {left_s:.0f} s left")

    def say(self, text: str) -> None:
        """Print a line beside the bar."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
