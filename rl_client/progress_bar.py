"""A bar on a terminal for long work, and plain lines beside it or in its place."""

from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ProgressBar:
    """A bar with the time gone and left, and figures at its end; nothing of it where there is no terminal.

    A context manager.

    Args:
        title: What is running.
        done: Of the total, before.
        total: Of the whole work.
        quiet: Show nothing at all.
    """

    def __init__(self, title: str, *, done: int, total: int, quiet: bool = False) -> None:
        self._title = title
        self._total = total
        self._console = Console(stderr=True, quiet=quiet)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(title, total=total, completed=done, figures="")

    @property
    def is_shown(self) -> bool:
        """Whether there is a terminal to show it on."""
        return self._console.is_terminal

    def move(self, done: int, figures: str) -> None:
        """Show how much is done by now, and figures."""
        self._progress.update(self._task, completed=done, figures=figures)

    def say(self, text: str) -> None:
        """Print a line beside the bar, as it is."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

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
