"""Where the time of a run's steps went, as a table at its end."""

from types import TracebackType
from typing import Self

from rich.table import Table

from rl_client.training.metric_log import Metrics
from rl_client.training.progress import ProgressReport

PHASES = {
    "generate_wait_s": "sampling, or waiting for it",
    "forward_s": "policy, reference and value model read",
    "score_wait_s": "waiting for scores",
    "advantage_s": "rewards on tokens, advantages",
    "update_policy_s": "update: policy",
    "update_value_s": "update: value model",
    "update_optimizer_s": "update: optimizers",
}
"""What a step does, one after the other; what is left of `step_s` is shown as the rest."""
BESIDE = {"generate_s": "sampling, all of it", "score_s": "scoring, from the first request to the last score"}
"""What goes on beside the phases."""


class TimeTable:
    """Collects the timings of steps and shows their means when the run ends, in whatever way it does."""

    def __init__(self, progress: ProgressReport) -> None:
        self._progress = progress
        self._sums_s: dict[str, float] = {}
        self._steps = 0

    def add(self, metrics: Metrics) -> None:
        """Count a step."""
        self._steps += 1
        for name in (*PHASES, *BESIDE, "step_s"):
            self._sums_s[name] = self._sums_s.get(name, 0.0) + (metrics.get(name) or 0.0)

    def table(self) -> Table:
        """Mean seconds of a step and its share, by phase."""
        step_s = self._sums_s["step_s"] / self._steps
        found = Table(title=f"a step's {step_s:.3g} s, mean of {self._steps}", title_justify="left")
        found.add_column("phase")
        found.add_column("seconds", justify="right")
        found.add_column("share", justify="right")

        def add(label: str, seconds: float) -> None:
            found.add_row(label, f"{seconds:.3g}", f"{seconds / step_s:.1%}")

        means_s = {name: total_s / self._steps for name, total_s in self._sums_s.items()}
        for name, label in PHASES.items():
            add(label, means_s[name])
        add("the rest", step_s - sum(means_s[name] for name in PHASES))
        found.add_section()
        for name, label in BESIDE.items():
            add(f"beside: {label}", means_s[name])
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._steps:
            self._progress.show(self.table())
