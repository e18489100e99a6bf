"""How the commands say what went wrong."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

EXIT_FAILED = 1
"""Exit status of a command that could not do its work; the reason is on stderr."""


@contextmanager
def told(*more: type[Exception]) -> Iterator[None]:
    """What goes wrong within is said in one line, with its notes, and ends the command with `EXIT_FAILED`.

    Args:
        more: Told too, beside the client's own errors and the system's.
    """
    from rl_client.api import RewardClientError
    from rl_client.errors import TrainingError

    expected: tuple[type[Exception], ...] = (TrainingError, RewardClientError, OSError, *more)
    try:
        yield
    except expected as error:
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", []))
        raise failed(f"{type(error).__name__}: {error}{notes}") from error


def failed(text: str) -> typer.Exit:
    """The end of a command, to be raised, once the reason is on stderr."""
    typer.echo(text, err=True)
    return typer.Exit(EXIT_FAILED)
