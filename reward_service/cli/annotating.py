"""Commands about people's feedback: `annotations add`, `export` and `agreement`."""

import json
import sys
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reward_service.annotate_settings import AnnotateSettings
from reward_service.annotation.offsets import Offsets
from reward_service.annotation.scored import Order
from reward_service.cli.faults import FAULTS, fail
from reward_service.errors import ConfigError

if TYPE_CHECKING:
    from reward_service.annotation.scored import ScoredResponse

annotations_app = typer.Typer(no_args_is_help=True, help="Tasks for annotators, and what they said.")

Config = Annotated[Path | None, typer.Option(help="The service's settings, whose annotate.path is used.")]
Database = Annotated[Path | None, typer.Option("--db", help="The file of annotations, in place of --config.")]
Counted = Annotated[
    Offsets | None, typer.Option(help="What the other program's positions count; what it usually counts if absent.")
]


class Source(StrEnum):
    """How a file of tasks is written."""

    QA_FEEDBACK = "qa_feedback"
    RESPONSES = "responses"
    LEDGER = "ledger"
    LABEL_STUDIO = "label_studio"
    ARGILLA = "argilla"


class Target(StrEnum):
    """How annotations are written."""

    QA_FEEDBACK = "qa_feedback"
    LABEL_STUDIO = "label_studio"
    ARGILLA = "argilla"


@annotations_app.callback()
def annotations() -> None:
    """Tasks for the page /annotate, and what people said there. May run while the service does."""


@annotations_app.command()
def add(
    file: Annotated[Path, typer.Argument(help="Questions and responses.")],
    config: Config = None,
    database: Database = None,
    source: Annotated[Source, typer.Option("--format", help="How the file is written.")] = Source.QA_FEEDBACK,
    order: Annotated[Order, typer.Option(help="Which of scored responses come first.")] = Order.GIVEN,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many tasks of scored responses.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Of scored responses, count this model's scores; may be given again.")
    ] = None,
    annotator: Annotated[
        str | None, typer.Option(help="Take the feedback in a QA-Feedback file too, as this person's.")
    ] = None,
    offsets: Counted = None,
) -> None:
    """Add tasks behind those that are there; the same task is never added twice."""
    from reward_service.annotation.exchange import Imported
    from reward_service.annotation.files import TaskFormat, add_imported, read_annotations
    from reward_service.annotation.scored import choose_tasks
    from reward_service.annotation.store import opened_store

    left_out = 0
    try:
        if source in (Source.RESPONSES, Source.LEDGER):
            chosen = choose_tasks(_of_models(_read_scored(file, source), model), order, limit)
            found = [Imported(task, {}) for task in chosen.tasks]
            left_out = chosen.left_out
        elif order is not Order.GIVEN or limit is not None or model:
            raise ConfigError("--order", [f"order, limit and model are of scored responses, not of {source}"])
        else:
            found = read_annotations(file, TaskFormat(source), annotator=annotator, offsets=offsets)
        with opened_store(_path(config, database)) as store:
            added = add_imported(store, found)
    except FAULTS as error:
        fail(error)
    typer.echo(f"{added.tasks} new tasks, {len(found) - added.tasks} known; {added.annotations} new annotations")
    if added.kept:
        typer.echo(f"{added.kept} annotations were there already and stay as they are", err=True)
    if left_out:
        typer.echo(f"{left_out} responses were left out: blank, or a fifth one to a question", err=True)


@annotations_app.command()
def export(
    out: Annotated[Path, typer.Option(help="Where to write them.")],
    config: Config = None,
    database: Database = None,
    target: Annotated[Target, typer.Option("--format", help="How to write them.")] = Target.QA_FEEDBACK,
    annotator: Annotated[str | None, typer.Option(help="This person's alone.")] = None,
    drafts: Annotated[bool, typer.Option("--drafts", help="Unfinished ones too.")] = False,
    offsets: Counted = None,
) -> None:
    """Write what people said; QA-Feedback's format is what `reward-service train` reads."""
    from reward_service.annotation.files import TaskFormat, render, undecided_drafts
    from reward_service.annotation.store import opened_store

    try:
        with opened_store(_existing(config, database)) as store:
            annotated = store.annotated(annotator, drafts=drafts)
            text = render(store, TaskFormat(target), annotator=annotator, drafts=drafts, offsets=offsets)
        staged = out.with_name(f".{out.name}.unfinished")
        staged.write_text(text, encoding="utf-8")
        staged.replace(out)
    except FAULTS as error:
        fail(error)
    typer.echo(f"{len(annotated)} annotations of {len({task.id for task, _ in annotated})} tasks")
    partial = undecided_drafts([(task, kept.annotation) for task, kept in annotated])
    if partial and target is Target.QA_FEEDBACK:
        typer.echo(f"{partial} drafts have undecided pairs; their preferences are left out", err=True)
    if target is Target.ARGILLA and any(e.explanation for _, k in annotated for e in k.annotation.feedback.errors):
        typer.echo("Argilla has no place for explanations of spans; they are left out", err=True)


@annotations_app.command()
def agreement(config: Config = None, database: Database = None) -> None:
    """Tell Krippendorff's alpha of what several people finished, as JSON."""
    from reward_service.annotation.agreement import agreement as compare
    from reward_service.annotation.annotation import Types
    from reward_service.annotation.store import opened_store

    try:
        types = Types.of(_settings(config) if config is not None else AnnotateSettings())
        with opened_store(_existing(config, database)) as store:
            told = asdict(compare(store.annotated(), types))
    except FAULTS as error:
        fail(error)
    sys.stdout.write(json.dumps(told, indent=2) + "\n")


def _settings(config: Path) -> AnnotateSettings:
    from reward_service.config import ServiceSettings, load_settings

    return load_settings(config, ServiceSettings).annotate


def _path(config: Path | None, database: Path | None) -> Path:
    if database is not None:
        return database
    if config is None:
        raise ConfigError("annotations", ["which ones? Give --config SETTINGS or --db FILE"])
    path = _settings(config).path
    if path is None:
        raise ConfigError(str(config), ["annotate.path: is not set, so that there are no annotations"])
    return path


def _existing(config: Path | None, database: Path | None) -> Path:
    path = _path(config, database)
    if not path.exists():
        raise ConfigError(str(path), ["no such file"])
    return path


def _read_scored(file: Path, source: Source) -> "list[ScoredResponse]":
    from reward_service.annotation.files import read_responses

    if source is Source.RESPONSES:
        return read_responses(file)
    try:
        from reward_service.annotation.ledger_rows import read_ledger
    except ImportError as error:
        raise ConfigError(
            "--format", ["ledger needs a package: pip install 'fine-grained-rlhf[annotation]'"]
        ) from error
    read = read_ledger(file)
    if read.without_text:
        typer.echo(f"{read.without_text} scores have no text and are left out", err=True)
    return read.responses


def _of_models(scored: "list[ScoredResponse]", models: list[str] | None) -> "list[ScoredResponse]":
    if not models:
        return scored
    known = {name for one in scored for name in one.scores}
    wanted = {name for name in known if name in models or name.partition("@")[0] in models}
    unknown = sorted(set(models) - wanted - {name.partition("@")[0] for name in wanted})
    if unknown:
        raise ConfigError("--model", [f"{', '.join(unknown)} scored nothing; there is {', '.join(sorted(known))}"])
    return [
        replace(one, scores={name: score for name, score in one.scores.items() if name in wanted}) for one in scored
    ]
