"""The client's command line."""

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train policies on dense rewards from a service.")


@app.callback()
def main() -> None:
    """Train and evaluate policies on dense rewards from a reward service."""
