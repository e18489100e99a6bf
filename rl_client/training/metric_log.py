"""One JSON object a step in metrics.jsonl, and the same figures for every tracker."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from rl_client.training.durable import write_text, writing
from rl_client.training.trackers import TensorBoardTracker, Tracker

METRICS_FILE = "metrics.jsonl"

Metrics = dict[str, float | None]
"""Figures by name. None = not defined in this step, such as the mean of no scores."""


class MetricLog:
    """Appends each step's metrics."""

    def __init__(self, output: Path, *, after_step: int, trackers: Sequence[Tracker] | None = None) -> None:
        """Open the log.

        Args:
            output: The run's folder.
            after_step: The step that the run goes on from; lines of later ones, written before a crash, are dropped.
            trackers: What else shows the figures; TensorBoard when None. They are closed with the log.
        """
        path = output / METRICS_FILE
        with writing(f"{path}"):
            _drop_lines_after(path, after_step)
            self._file = path.open("a", encoding="utf-8")
        self._trackers = [TensorBoardTracker(output, after_step=after_step)] if trackers is None else list(trackers)

    def write(self, step: int, metrics: Metrics) -> None:
        """Write a step's line. A figure that is NaN or infinite is written as null, which JSON can hold.

        Raises:
            OutputError: If it, or a tracker's files, cannot be written.
        """
        defined = {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}
        line = {"step": step, **{name: defined.get(name) for name in metrics}}
        with writing(f"the metrics of step {step}"):
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
            for tracker in self._trackers:
                tracker.write(step, defined)

    def sync(self) -> None:
        """Force the lines to disk: a checkpoint is not to outlive the lines of its steps. Closing does it too.

        Raises:
            OutputError: If that fails.
        """
        if not self._file.closed:
            with writing("metrics"):
                os.fsync(self._file.fileno())

    def write_page(self, step: int, name: str, html: str) -> None:
        """Show a self-contained page where a tracker can."""
        with writing(f"the page {name} of step {step}"):
            for tracker in self._trackers:
                tracker.write_page(step, name, html)

    def close(self) -> None:
        """Flush and close all, each even if another cannot be."""
        with writing("metrics"), ExitStack() as stack:
            for tracker in self._trackers:
                stack.callback(tracker.close)
            stack.callback(self._file.close)
            stack.callback(self.sync)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NoLog(MetricLog):
    """The log of a process that writes none, since another one does."""

    def __init__(self) -> None:
        """Open nothing."""

    def write(self, step: int, metrics: Metrics) -> None:
        """Write nothing."""

    def sync(self) -> None:
        """Nothing is written."""

    def write_page(self, step: int, name: str, html: str) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Nothing is open."""


def read_metrics(output: Path) -> list[Mapping[str, float | None]]:
    """The lines of a run's metrics.jsonl; a last line without its newline, torn by a crash, is left out."""
    path = output / METRICS_FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _drop_lines_after(path: Path, step: int) -> None:
    kept = [line for line in read_metrics(path.parent) if (line["step"] or 0) <= step]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
