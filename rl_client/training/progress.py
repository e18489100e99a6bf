"""What a run shows while it works: a bar on a terminal, a line now and then elsewhere."""

from rl_client.progress_bar import ProgressBar
from rl_client.training.metric_log import Metrics

LINES_PER_RUN = 20
"""How many lines a whole run prints where there is no terminal."""


class ProgressReport(ProgressBar):
    """Shows steps, chosen figures and the time left.

    Args:
        title: What is running.
        start_step: Steps done before.
        steps: Of the whole run.
        shown: Names of the metrics to show, in order; one that ends in `/` stands for all under it.
        quiet: Show nothing.
    """

    def __init__(self, title: str, *, start_step: int, steps: int, shown: tuple[str, ...], quiet: bool = False) -> None:
        super().__init__(title, done=start_step, total=steps, quiet=quiet)
        self._shown = shown
        self._every = max(1, steps // LINES_PER_RUN)

    def update(self, step: int, metrics: Metrics) -> None:
        """Show a finished step."""
        figures = "  ".join(
            f"{name} {value:.4g}" for name, value in metrics.items() if value is not None and self._names(name)
        )
        self.move(step, figures)
        if not self.is_shown and (step % self._every == 0 or step == self._total):
            self.say(f"{self._title} {step}/{self._total}  {figures}")

    def _names(self, name: str) -> bool:
        return any(name == shown or (shown.endswith("/") and name.startswith(shown)) for shown in self._shown)
