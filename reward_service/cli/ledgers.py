"""Commands about the reward ledger: `ledger export` and `ledger stats`."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reward_service.cli.faults import FAULTS, fail
from reward_service.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from reward_service.ledger.database import Database

TIME_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
TABLE_WIDTH = 120

ledger_app = typer.Typer(no_args_is_help=True, help="Read the scores that the service recorded.")

ConfigFile = Annotated[Path | None, typer.Option("--config", help="The service's settings, which name the ledger.")]
Place = Annotated[
    str | None, typer.Option("--ledger", help="A SQLite file or a postgresql:// address, in place of --config.")
]
Time = Annotated[datetime | None, typer.Option(formats=TIME_FORMATS, help="A time in UTC.")]


@ledger_app.callback()
def ledger() -> None:
    """Read the scores that the service recorded. The service may be running."""


@ledger_app.command()
def export(
    out: Annotated[Path, typer.Option(help="The Parquet file; one that is there is replaced.")],
    config: ConfigFile = None,
    place: Place = None,
    job: Annotated[str | None, typer.Option(help="Scores for this training job.")] = None,
    run: Annotated[str | None, typer.Option(help="Scores for this run.")] = None,
    first_step: Annotated[int | None, typer.Option(min=0, help="Scores for this step and later ones.")] = None,
    last_step: Annotated[int | None, typer.Option(min=0, help="Scores for this step and earlier ones.")] = None,
    model: Annotated[str | None, typer.Option(help="Scores of this model.")] = None,
    version: Annotated[str | None, typer.Option(help="Scores of this version.")] = None,
    since: Time = None,
    until: Time = None,
) -> None:
    """Write recorded scores to a Parquet file, one row for each, the oldest first."""
    with _opened(config, place) as database:
        from reward_service.ledger.export import write_parquet
        from reward_service.ledger.reader import Filters, Reading

        filters = Filters(job, run, first_step, last_step, model, version, _ms(since), _ms(until))
        reading = Reading(database, filters)
        with _progress() as progress:
            bar = progress.add_task("scores", total=reading.count())
            written = write_parquet(reading.rows(), out, lambda more: progress.advance(bar, more))
    typer.echo(f"{written} scores in {out}")


@ledger_app.command()
def stats(
    config: ConfigFile = None,
    place: Place = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Tell what the ledger holds: how much, of which models, for which jobs and runs."""
    with _opened(config, place) as database:
        from reward_service.ledger.reader import sum_up

        told = sum_up(database)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    console.print(
        f"{told['scores']} scores of {told['items']} items, about {told['bytes'] / 1e6:,.1f} MB,"
        f" from {told['oldest'] or '-'} to {told['newest'] or '-'}",
        highlight=False,
    )
    console.print(_table("Models", told["models"]), _table("Jobs and runs", told["runs"]))


@contextmanager
def _opened(config: Path | None, place: str | None) -> "Iterator[Database]":
    """The ledger that the options name; faults that the user can mend end the command."""
    try:
        import pyarrow  # noqa: F401
        from sqlalchemy.exc import SQLAlchemyError

        from reward_service.ledger.database import ForeignDatabaseError, opened
    except ImportError as error:
        fail(ValueError(f"needs {error.name}, which is not installed: pip install 'fine-grained-rlhf[ledger]'"))
    try:
        with opened(_place(config, place)) as database:
            yield database
    except ImportError as error:
        fail(ValueError(f"needs {error.name}, which is not installed: pip install 'fine-grained-rlhf[postgres]'"))
    except SQLAlchemyError as error:
        fail(ValueError(str(getattr(error, "orig", None) or error)))
    except (*FAULTS, ForeignDatabaseError) as error:
        fail(error)


def _place(config: Path | None, place: str | None) -> str | Path:
    from reward_service.config import ServiceSettings, load_settings

    if (config is None) == (place is None):
        raise ConfigError("options", ["either --config or --ledger says where the ledger is"])
    if place is not None:
        return place
    settings = load_settings(Path(str(config)), ServiceSettings).ledger
    if (found := settings.path or settings.url) is None:
        raise ConfigError(str(config), ["ledger: the service keeps none"])
    return found


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _ms(time: datetime | None) -> int | None:
    return None if time is None else round(time.replace(tzinfo=UTC).timestamp() * 1000)


def _table(title: str, rows: list[dict[str, Any]]) -> "RenderableType":
    from rich.table import Table

    table = Table(title=title)
    for name in rows[0] if rows else ("nothing",):
        table.add_column(name.replace("_", " "), justify="right" if rows and _is_number(rows, name) else "left")
    for row in rows:
        table.add_row(*("-" if value is None else _shown(value) for value in row.values()))
    return table


def _is_number(rows: list[dict[str, Any]], name: str) -> bool:
    return all(row[name] is None or isinstance(row[name], int | float) for row in rows)


def _shown(value: Any) -> str:
    from rich.markup import escape

    return f"{value:.4f}" if isinstance(value, float) else escape(str(value))
