"""Which of a run's checkpoints is the best one by a metric."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rl_client.training.durable import write_text
from rl_client.training.metric_log import Metrics

BEST_FILE = "best.json"
"""Beside the checkpoints: names the best one, for people and programs."""


class BestCheckpoint:
    """Follows a metric; a part of the run's state.

    A checkpoint is judged by the metric's mean over the steps since the last due one: a single step's is noisy. Those
    steps sampled with policies up to the one before it.

    Attributes:
        step: The best checkpoint's; None before the first.
        value: Its mean; the larger the better.
    """

    def __init__(self, metric: str | None) -> None:
        """Begin a run; without a metric nothing is ever the best."""
        self._metric = metric
        self._values: list[float] = []
        self.step: int | None = None
        self.value: float | None = None

    def note(self, metrics: Metrics) -> None:
        """Take in a step's metrics; one in which the metric is not defined counts nowhere."""
        value = metrics.get(self._metric) if self._metric is not None else None
        if value is not None:
            self._values.append(value)

    def judge(self, step: int) -> None:
        """Compare the checkpoint that is due now with the best one so far; of equal ones the earlier stays."""
        if not self._values:
            return
        mean = sum(self._values) / len(self._values)
        self._values = []
        if self.value is None or mean > self.value:
            self.step, self.value = step, mean

    def forget(self) -> None:
        """There is no best one any more: its files are gone."""
        self.step = self.value = None

    def write(self, folder: Path) -> None:
        """Write `best.json`, whole or not at all; nothing while there is no best."""
        if self.step is None:
            return
        content = {"step": self.step, "metric": self._metric, "value": self.value}
        write_text(folder / BEST_FILE, json.dumps(content) + "\n")

    def pack(self) -> dict[str, Any]:
        """JSON values, exact to the bit."""
        return {"metric": self._metric, "values": self._values, "step": self.step, "value": self.value}

    def unpack(self, saved: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; with another metric the search begins anew."""
        if saved["metric"] == self._metric:
            self._values, self.step, self.value = list(saved["values"]), saved["step"], saved["value"]
