"""Commands about stored models: `models publish`, `alias`, `convert` and `list`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.cli.faults import FAULTS, fail
from reward_service.domain import Pooling, Readout
from reward_service.errors import StoreError
from reward_service.registry.manifest import Scoring

models_app = typer.Typer(no_args_is_help=True, help="Publish, convert and list models.")


@models_app.command()
def publish(
    directory: Annotated[Path, typer.Argument(help="config.json, model.safetensors, tokenizer.json.")],
    name: Annotated[str, typer.Option(help="The model's name in the store.")],
    kind: Annotated[ModelKind, typer.Option(help="What its head puts out.")],
    granularity: Annotated[Granularity, typer.Option(help="What its segments are.")],
    template: Annotated[str, typer.Option(help="The input's prefix, with {field}s; all of it, with {response}.")],
    store: Annotated[Path, typer.Option(help="Where published versions live.")],
    fields: Annotated[str, typer.Option(help="What callers send besides the prompt.")] = "question,context",
    labels: Annotated[str, typer.Option(help="Class names by index, for a config.json without any.")] = "",
    ok_label: Annotated[str | None, typer.Option(help='The class that means "no error".')] = None,
    error_label: Annotated[
        list[str] | None,
        typer.Option(help="A class that is an error, where several may hold at once (sigmoids)."),
    ] = None,
    language: Annotated[str, typer.Option(help="The segmenter's, an ISO 639 code.")] = "en",
    readout: Annotated[
        Readout | None, typer.Option(help="Which separator of a segment is read; what the model allows if absent.")
    ] = None,
    pooling: Annotated[
        Pooling, typer.Option(help="What of a segment is read: its separator, or the mean of it and its tokens.")
    ] = Pooling.SEPARATOR,
    scoring: Annotated[Scoring, typer.Option(help="How segments get their scores.")] = Scoring.DIRECT,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest input; what the model allows if absent.")
    ] = None,
    cut_field: Annotated[str | None, typer.Option(help="The one field that may be cut to fit.")] = None,
    alias: Annotated[list[str] | None, typer.Option(help="Points at the version, besides latest.")] = None,
) -> None:
    """Publish a model that some other program trained, and print its version."""
    from reward_service.registry.describe import describe
    from reward_service.registry.store import DEFAULT_ALIAS, Store

    try:
        manifest = describe(
            directory,
            name=name,
            kind=kind,
            granularity=granularity,
            template=template,
            fields=_listed(fields),
            labels=_listed(labels),
            ok_label=ok_label,
            error_labels=tuple(error_label or ()),
            language=language,
            readout=readout,
            pooling=pooling,
            scoring=scoring,
            max_tokens=max_tokens,
            cut_field=cut_field,
        )
        published = Store(store).publish(directory, manifest, [DEFAULT_ALIAS, *(alias or [])])
    except FAULTS as error:
        fail(error)
    labels = ", ".join(manifest.labels)
    if manifest.error_labels and not error_label:
        typer.echo(f"taking {', '.join(manifest.error_labels)!r} of {labels} for the error (--error-label)", err=True)
    elif manifest.labels and not manifest.error_labels and ok_label is None:
        typer.echo(f"taking {manifest.ok_label!r} of {labels} for no error (--ok-label)", err=True)
    typer.echo(published.version)


@models_app.command("alias")
def point_alias(
    reference: Annotated[str, typer.Argument(help="name, name@alias or name@version.")],
    aliases: Annotated[list[str], typer.Argument(help="What shall name that version from now on.")],
    store: Annotated[Path, typer.Option(help="Where published versions live.")],
) -> None:
    """Move aliases to a version, which is verified first, and print it."""
    from reward_service.registry.store import Store

    try:
        models = Store(store)
        published = models.resolve(reference)
        models.point(published.name, published.version, aliases)
    except FAULTS as error:
        fail(error)
    typer.echo(published.version)


@models_app.command()
def convert(
    directory: Annotated[Path, typer.Argument(help="A checkpoint with pytorch_model.bin, as older trainers wrote.")],
    out: Annotated[Path, typer.Argument(help="A new directory, which can be published.")],
    drop_label: Annotated[
        list[str] | None, typer.Option(help="A class that was never trained; its row of the head goes.")
    ] = None,
) -> None:
    """Make safetensors and tokenizer.json of an older checkpoint. Nothing in it is run."""
    from reward_service.training.convert import convert_checkpoint

    try:
        converted = convert_checkpoint(directory, out, drop_label or [])
    except FAULTS as error:
        fail(error)
    for line in converted:
        typer.echo(line)


@models_app.command("list")
def list_models(
    store: Annotated[Path, typer.Option(help="Where published versions live.")],
    as_json: Annotated[bool, typer.Option("--json", help="Everything, for programs.")] = False,
) -> None:
    """List every published version."""
    from reward_service.registry.store import Store

    try:
        if not store.is_dir():
            raise StoreError(f"{store}: no such store")
        found = Store(store).list()
    except FAULTS as error:
        fail(error)
    if as_json:
        typer.echo(json.dumps([published.summary() for published in found], indent=2))
        return
    for published in found:
        aliases = f" ({', '.join(published.aliases)})" if published.aliases else ""
        typer.echo(f"{published.name}@{published.version}{aliases}  {published.manifest.kind.value}")


def _listed(text: str) -> tuple[str, ...]:
    """`a, b` as a tuple; empty for an empty text."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
