"""What a run shows while it works: a bar on a terminal, a line now and then elsewhere."""

from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rl_client.training.metric_log import Metrics

LINES_PER_RUN = 20
"""How many lines a whole run prints where there is no terminal."""


class ProgressReport:
    """Shows steps, chosen figures and the time left."""

    def __init__(self, title: str, *, start_step: int, steps: int, shown: tuple[str, ...], quiet: bool = False) -> None:
        """Prepare the report.

        Args:
            title: What is running.
            start_step: Steps done before.
            steps: Of the whole run.
            shown: Names of the metrics to show, in order; one that ends in `/` stands for all under it.
            quiet: Show nothing.
        """
        self._console = Console(stderr=True, quiet=quiet)
        self._steps = steps
        self._shown = shown
        self._every = max(1, steps // LINES_PER_RUN)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(title, total=steps, completed=start_step, figures="")
        self._title = title

    def update(self, step: int, metrics: Metrics) -> None:
        """Show a finished step."""
        figures = "  ".join(
            f"{name} {value:.4g}" for name, value in metrics.items() if value is not None and self._is_shown(name)
        )
        self._progress.update(self._task, completed=step, figures=figures)
        if not self._console.is_terminal and (step % self._every == 0 or step == self._steps):
            self._console.print(f"{self._title} {step}/{self._steps}  {figures}", highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line beside the bar."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def show(self, figure: RenderableType) -> None:
        """Print a table."""
        self._console.print(figure)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def _is_shown(self, name: str) -> bool:
        return any(name == shown or (shown.endswith("/") and name.startswith(shown)) for shown in self._shown)
