"""Commands that make and judge reward models: `train` and `evaluate`."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from reward_service.cli.exporting import StoredRuntime
from reward_service.cli.faults import FAULTS, fail

TABLE_WIDTH = 132


class FeedbackFormat(StrEnum):
    """How feedback is written."""

    QA_FEEDBACK = "qa_feedback"


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
        fail(error)
    # A log file has no width of its own, and rich would cut the columns to 80 characters.
    Console(width=None if sys.stdout.isatty() else TABLE_WIDTH).print(metrics_table(trained))


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
        fail(error)
    sys.stdout.write(text)
