"""The service's command line, and the only place that wires its parts together."""

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Serve, train, evaluate and export reward models.")


@app.callback()
def main() -> None:
    """Serve, train, evaluate and export fine-grained reward models."""
