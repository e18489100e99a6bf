"""The service's command line. Commands import what they need, so that serving loads no training part."""

import json
import logging
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.errors import ConfigError, ParityError, ServiceError, StoreError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Serve, train, evaluate and export reward models.")
models_app = typer.Typer(no_args_is_help=True, help="Publish and list models.")
app.add_typer(models_app, name="models")

FAULTS = (ConfigError, StoreError, ParityError, ServiceError, OSError)
"""What the user can mend."""

TABLE_WIDTH = 132
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class FeedbackFormat(StrEnum):
    """How feedback is written."""

    QA_FEEDBACK = "qa_feedback"


class StoredRuntime(StrEnum):
    """What can compute the scores of a stored model."""

    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"


@app.callback()
def main() -> None:
    """Serve, train, evaluate and export fine-grained reward models."""


@app.command()
def serve(
    config: Annotated[Path, typer.Option(help="Settings, as YAML.")],
    host: Annotated[str | None, typer.Option(help="Address to listen on, in place of the file's.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port, in place of the file's.")] = None,
) -> None:
    """Serve reward models over HTTP until SIGTERM."""
    from reward_service.config import ServiceSettings, load_settings
    from reward_service.serve import serve as serve_models

    try:
        settings = load_settings(config, ServiceSettings)
        logging.basicConfig(level=settings.log_level.upper(), format=LOG_FORMAT)
        given = {"host": host, "port": port}
        serve_models(settings.model_copy(update={name: value for name, value in given.items() if value is not None}))
    except (ConfigError, StoreError, ServiceError, OSError) as error:
        _fail(error)


@app.command()
def openapi(
    output: Annotated[Path | None, typer.Option(help="File to write; standard output otherwise.")] = None,
) -> None:
    """Export the OpenAPI document of the HTTP interface."""
    from reward_service.serve import openapi_document

    text = json.dumps(openapi_document(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")


@app.command()
def train(
    config: Annotated[Path, typer.Option(help="Settings, as YAML.")],
    only: Annotated[list[str] | None, typer.Option(help="Train this model alone; may be given again.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Train also what was trained by the same settings.")] = False,
) -> None:
    """Train reward models from feedback, print their held-out figures and publish them."""
    from rich.console import Console

    from reward_service.config import load_settings
    from reward_service.training.config import TrainConfig
    from reward_service.training.summary import metrics_table
    from reward_service.training.train import train_models

    try:
        settings = load_settings(config, TrainConfig)
        trained = train_models(settings, only or [], force=force, console=Console(stderr=True))
    except FAULTS as error:
        _fail(error)
    # A log file has no width of its own, and rich would cut the columns to 80 characters.
    Console(width=None if sys.stdout.isatty() else TABLE_WIDTH).print(metrics_table(trained))


@app.command()
def evaluate(
    name: Annotated[str, typer.Argument(help="name, name@alias or name@version.")],
    store: Annotated[Path, typer.Option(help="Where published versions live.")],
    data: Annotated[list[Path], typer.Option(help="Feedback file; may be given again.")],
    output: Annotated[Path | None, typer.Option("--json", help="Where to write the figures.")] = None,
    data_format: Annotated[FeedbackFormat, typer.Option("--format", help="Of the files.")] = FeedbackFormat.QA_FEEDBACK,
    runtime: Annotated[StoredRuntime, typer.Option(help="What computes the scores.")] = StoredRuntime.TORCH,
    threads: Annotated[int, typer.Option(min=1, help="Of the runtime.")] = 1,
) -> None:
    """Judge a published model by held-out feedback, through the code that serves it."""
    from reward_service.registry.store import Store
    from reward_service.training import evaluate as evaluation
    from reward_service.training.dataset import read_feedback
    from reward_service.training.model import silence_transformers

    silence_transformers()
    try:
        examples = read_feedback(data)
        published = Store(store).resolve(name)
        rule = evaluation.published_rule(published) or evaluation.default_rule(examples)
        backend = evaluation.load_backend(published, runtime.value, threads=threads)
        metrics = evaluation.evaluate(published, backend, examples, rule)
        text = json.dumps(evaluation.report(published, backend.runtime, metrics, data, len(examples)), indent=2) + "\n"
        if output is not None:
            output.write_text(text, encoding="utf-8")
    except FAULTS as error:
        _fail(error)
    sys.stdout.write(text)


@app.command()
def export(
    names: Annotated[list[str], typer.Argument(help="Each a name, name@alias or name@version.")],
    store: Annotated[Path, typer.Option(help="Where published versions live.")],
    runtime: Annotated[StoredRuntime, typer.Option(help="onnxruntime.")] = StoredRuntime.ONNXRUNTIME,
    precision: Annotated[str, typer.Option(help="fp32.")] = "fp32",
    data: Annotated[list[Path] | None, typer.Option(help="Feedback to compare on; the model's own otherwise.")] = None,
) -> None:
    """Export published models to ONNX; nothing is written of one unless it scores as torch does."""
    from reward_service.registry.store import Store
    from reward_service.training.dataset import read_feedback, text_items
    from reward_service.training.export_onnx import export_onnx
    from reward_service.training.model import silence_transformers

    silence_transformers()
    try:
        if runtime is not StoredRuntime.ONNXRUNTIME or precision != "fp32":
            raise ConfigError("export", [f"there is onnxruntime in fp32, not {runtime.value} in {precision}"])
        models = Store(store)
        items = [item for example in read_feedback(data) for item in text_items(example)] if data else None
        for name in names:
            path, parity = export_onnx(models, models.resolve(name), items)
            typer.echo(
                f"{path}: {parity.n_segments} scores, largest difference from torch {parity.max_abs_diff:.2g} "
                f"(allowed {parity.tolerance:g}), {parity.label_flips} labels differ"
            )
    except FAULTS as error:
        _fail(error)


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
        _fail(error)
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
        _fail(error)
    if as_json:
        typer.echo(json.dumps([published.summary() for published in found], indent=2))
        return
    for published in found:
        aliases = f" ({', '.join(published.aliases)})" if published.aliases else ""
        typer.echo(f"{published.name}@{published.version}{aliases}  {published.manifest.kind.value}")


def _fail(error: Exception) -> NoReturn:
    """Tell a fault that the user can mend, without a stack trace."""
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(2) from error
