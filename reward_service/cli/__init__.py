"""The service's command line. Commands import what they need, so that serving loads no training part."""

import typer

from reward_service.cli.annotating import annotations_app
from reward_service.cli.benching import bench
from reward_service.cli.exporting import export
from reward_service.cli.keys import keys_app
from reward_service.cli.ledgers import ledger_app
from reward_service.cli.serving import openapi, serve
from reward_service.cli.stored import models_app
from reward_service.cli.teaching import evaluate, split, train

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Serve, train, evaluate and export reward models.")
for command in (serve, openapi, split, train, evaluate, export, bench):
    app.command()(command)
app.add_typer(models_app, name="models")
app.add_typer(keys_app, name="keys")
app.add_typer(ledger_app, name="ledger")
app.add_typer(annotations_app, name="annotations")


@app.callback()
def main() -> None:
    """Serve, train, evaluate and export fine-grained reward models."""
