"""One JSON object a step in metrics.jsonl, and the same figures in TensorBoard."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from torch.utils.tensorboard import SummaryWriter

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"

Metrics = dict[str, float | None]
"""Figures by name. None = not defined in this step, such as the mean of no scores."""


class MetricLog:
    """Appends each step's metrics."""

    def __init__(self, output: Path, *, after_step: int) -> None:
        """Open the log.

        Args:
            output: The run's folder.
            after_step: The step that the run goes on from; lines of later ones, written before a crash, are dropped.
        """
        path = output / METRICS_FILE
        _drop_lines_after(path, after_step)
        self._file = path.open("a", encoding="utf-8")
        self._tensorboard = SummaryWriter(str(output / TENSORBOARD_FOLDER), purge_step=after_step + 1)

    def write(self, step: int, metrics: Metrics) -> None:
        """Write a step's line. A figure that is NaN or infinite is written as null, which JSON can hold."""
        line: dict[str, float | None] = {"step": step}
        for name, value in metrics.items():
            defined = value is not None and math.isfinite(value)
            line[name] = value if defined else None
            if defined:
                self._tensorboard.add_scalar(name, value, step)
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Flush and close both."""
        self._file.close()
        self._tensorboard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(output: Path) -> list[Mapping[str, float | None]]:
    """The lines of a run's metrics.jsonl; a last line without its newline, torn by a crash, is left out."""
    path = output / METRICS_FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _drop_lines_after(path: Path, step: int) -> None:
    kept = [line for line in read_metrics(path.parent) if (line["step"] or 0) <= step]
    draft = path.with_suffix(".jsonl.unfinished")
    draft.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    draft.replace(path)
