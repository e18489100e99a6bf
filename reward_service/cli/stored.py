"""Commands about the store: `models publish` and `models list`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.cli.faults import FAULTS, fail

models_app = typer.Typer(no_args_is_help=True, help="Publish and list models.")


@models_app.command()
def publish(
    directory: Annotated[Path, typer.Argument(help="config.json, model.safetensors, tokenizer.json.")],
    name: Annotated[str, typer.Option(help="The model's name in the store.")],
    kind: Annotated[ModelKind, typer.Option(help="What its head puts out.")],
    granularity: Annotated[Granularity, typer.Option(help="What its segments are.")],
    template: Annotated[str, typer.Option(help="The input's prefix, with {prompt} and other {field}s.")],
    store: Annotated[Path, typer.Option(help="Where published versions live.")],
    ok_label: Annotated[str | None, typer.Option(help='The class that means "no error".')] = None,
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
            ok_label=ok_label,
            max_tokens=max_tokens,
            cut_field=cut_field,
        )
        published = Store(store).publish(directory, manifest, [DEFAULT_ALIAS, *(alias or [])])
    except FAULTS as error:
        fail(error)
    if manifest.labels and ok_label is None:
        typer.echo(f"taking {manifest.ok_label!r} of {', '.join(manifest.labels)} for no error (--ok-label)", err=True)
    typer.echo(published.version)


@models_app.command("list")
def list_models(
    store: Annotated[Path, typer.Option(help="Where published versions live.")],
    as_json: Annotated[bool, typer.Option("--json", help="Everything, for programs.")] = False,
) -> None:
    """List every published version."""
    from reward_service.registry.store import Store

    try:
        found = Store(store).list()
    except FAULTS as error:
        fail(error)
    if as_json:
        typer.echo(json.dumps([published.summary() for published in found], indent=2))
        return
    for published in found:
        aliases = f" ({', '.join(published.aliases)})" if published.aliases else ""
        typer.echo(f"{published.name}@{published.version}{aliases}  {published.manifest.kind.value}")
