"""What a command does with a fault that its user can mend."""

from typing import NoReturn

import typer

from reward_service.errors import ConfigError, ParityError, ServiceError, StoreError

FAULTS = (ConfigError, StoreError, ParityError, ServiceError, OSError)
"""What the user can mend."""


def fail(error: Exception) -> NoReturn:
    """Tell a fault without a stack trace."""
    told = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    typer.echo(f"error: {told}", err=True)
    raise typer.Exit(2) from error
