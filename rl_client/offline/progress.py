"""What bulk scoring shows: a bar with rate and time left on a terminal, a line now and then elsewhere."""

import time

from rl_client.progress_bar import ProgressBar

SAY_EVERY_S = 10.0
"""How often a line is printed where there is no terminal."""


class RowProgress(ProgressBar):
    """Counts rows.

    Args:
        title: What is running.
        done: Rows done before.
        rows: Of the whole data.
    """

    def __init__(self, title: str, *, done: int, rows: int) -> None:
        super().__init__(title, done=done, total=rows)
        self._before = done
        self._done = done
        self._since_s = self._said_s = time.monotonic()

    def add(self, rows: int) -> None:
        """Count rows that are on disk."""
        self._done += rows
        now_s = time.monotonic()
        rate = (self._done - self._before) / max(now_s - self._since_s, 1e-9)
        self.move(self._done, f"{rate:.0f} rows/s")
        if not self.is_shown and (self._done >= self._total or now_s - self._said_s >= SAY_EVERY_S):
            self._said_s = now_s
            left_s = (self._total - self._done) / rate
            self.say(f"{self._title} {self._done}/{self._total}  {rate:.0f} rows/s  {left_s:.0f} s left")
