"""Seconds of each phase of a step."""

import time

import torch


class StepTimer:
    """Measures consecutive phases by wall clock; those of one name add up."""

    def __init__(self, device: torch.device | None = None) -> None:
        """Begin the first phase.

        Args:
            device: Where the work is done. A GPU works on after a call has returned, so it is waited for at each lap.
        """
        self._waits = device is not None and device.type == "cuda"
        self._start = self._last = time.perf_counter()
        self.phases_s: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """End the running phase, name it, and begin the next one."""
        if self._waits:
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.phases_s[name] = self.phases_s.get(name, 0.0) + now - self._last
        self._last = now

    @property
    def total_s(self) -> float:
        """Seconds since the step began."""
        return time.perf_counter() - self._start

    def sum_s(self, prefix: str) -> float:
        """Seconds of all phases whose names begin so."""
        return sum(seconds for name, seconds in self.phases_s.items() if name.startswith(prefix))
