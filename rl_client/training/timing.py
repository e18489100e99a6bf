"""Seconds of each phase of a step."""

import time


class StepTimer:
    """Measures consecutive phases by wall clock."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.phases_s: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """End the running phase, name it, and begin the next one."""
        now = time.perf_counter()
        self.phases_s[name] = now - self._last
        self._last = now

    @property
    def total_s(self) -> float:
        """Seconds since the step began."""
        return time.perf_counter() - self._start
