"""Commands about API keys: `keys new`."""

from pathlib import Path
from typing import Annotated

import typer

from reward_service.cli.faults import FAULTS, fail
from reward_service.key_file import add_key
from reward_service.keys import Role

keys_app = typer.Typer(no_args_is_help=True, help="Make API keys.")


@keys_app.callback()
def keys() -> None:
    """Make API keys; to revoke one, delete its entry from the file and send the service SIGHUP."""


@keys_app.command()
def new(
    file: Annotated[Path, typer.Option(help="The file that `auth.keys` names; made if there is none.")],
    role: Annotated[Role, typer.Option(help="What the key may do; an admin may score too.")] = Role.SCORE,
    job: Annotated[str | None, typer.Option(help="The training job of every request with this key.")] = None,
) -> None:
    """Add a key to a file and print it, this once: only its hash is kept."""
    try:
        secret = add_key(file, role, job)
    except FAULTS as error:
        fail(error)
    typer.echo(secret)
