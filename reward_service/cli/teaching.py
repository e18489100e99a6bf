"""Commands that make and judge reward models: `split`, `train` and `evaluate`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from reward_service.cli.exporting import StoredRuntime
from reward_service.cli.faults import FAULTS, fail
from reward_service.cli.feedback_files import EvaluateFormat, FeedbackFormat, parse_files
from reward_service.errors import ConfigError

TABLE_WIDTH = 132


def train(
    config: Annotated[Path, typer.Option(help="Settings, as YAML.")],
    only: Annotated[list[str] | None, typer.Option(help="Train this model alone; may be given again.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Train also what was trained by the same settings, from the start.")
    ] = False,
) -> None:
    """Train reward models from feedback, print their held-out figures and publish them.

    A training that was cut off goes on where its last checkpoint left it.
    """
    from rich.console import Console

    from reward_service.config import load_settings
    from reward_service.training.config import TrainConfig
    from reward_service.training.interrupt import EXIT_INTERRUPTED, InterruptedTrainingError, StopSignal
    from reward_service.training.summary import metrics_table
    from reward_service.training.train import train_models

    try:
        settings = load_settings(config, TrainConfig)
        with StopSignal() as stop:
            trained = train_models(
                settings, only or [], force=force, console=Console(stderr=True), should_stop=stop.is_received
            )
    except InterruptedTrainingError as stopped:
        typer.echo(str(stopped), err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from stopped
    except FAULTS as error:
        fail(error)
    if trained:  # Only the main one of several processes has something to tell.
        # A log file has no width of its own, and rich would cut the columns to 80 characters.
        Console(width=None if sys.stdout.isatty() else TABLE_WIDTH).print(metrics_table(trained))


def split(
    file: Annotated[Path, typer.Argument(help="Feedback.")],
    part: Annotated[list[str], typer.Option(help="NAME=ROWS or NAME=rest; two or more.")],
    out: Annotated[Path, typer.Option(help="Folder for one file a part.")],
    data_format: Annotated[FeedbackFormat, typer.Option("--format", help="Of the file.")] = FeedbackFormat.QA_FEEDBACK,
    seed: Annotated[int, typer.Option(min=0, help="Draws the order of the rows.")] = 0,
    in_order: Annotated[bool, typer.Option("--in-order", help="Keep the order of the file.")] = False,
) -> None:
    """Divide feedback, at random or in order; rows of one question stay in one part."""
    from reward_service.training.split import parse_parts, split_feedback

    try:
        parts = parse_parts(part)
    except ValueError as error:
        fail(ConfigError("--part", [str(error)]))
    try:
        sizes = split_feedback(file, data_format.value, parts, out, None if in_order else seed)
    except FAULTS as error:
        fail(error)
    typer.echo(", ".join(f"{name}: {size} rows" for name, size in sizes.items()))


def evaluate(
    name: Annotated[str, typer.Argument(help="name, name@alias or name@version.")],
    store: Annotated[Path, typer.Option(help="Where published versions live.")],
    data: Annotated[list[str], typer.Option(help="Feedback: FILE or FILE[START:STOP], in rows; may be given again.")],
    output: Annotated[Path | None, typer.Option("--json", help="Where to write the figures.")] = None,
    data_format: Annotated[EvaluateFormat, typer.Option("--format", help="Of the files.")] = EvaluateFormat.QA_FEEDBACK,
    head: Annotated[str | None, typer.Option(help="Of a model of several heads, judge this one.")] = None,
    report: Annotated[Path | None, typer.Option(help="Where to write a page of figures, as HTML.")] = None,
    scores: Annotated[Path | None, typer.Option(help="Where to write every score, as JSONL.")] = None,
    runtime: Annotated[StoredRuntime, typer.Option(help="What computes the scores.")] = StoredRuntime.TORCH,
    threads: Annotated[int, typer.Option(min=1, help="Of the runtime.")] = 1,
    against: Annotated[
        list[str] | None, typer.Option(help="On benchmarks, another model to compare with; may be given again.")
    ] = None,
    also_runtime: Annotated[
        list[StoredRuntime] | None, typer.Option(help="On benchmarks, another runtime to compare; may be given again.")
    ] = None,
) -> None:
    """Judge a published model by held-out feedback or a benchmark, through the code that serves it."""
    if data_format in (EvaluateFormat.PREFERENCES, EvaluateFormat.STEPS):
        from reward_service.cli.judging import judge

        runtimes = [one.value for one in (runtime, *(also_runtime or []))]
        models = [name, *(against or [])]
        judge(
            models,
            store,
            data,
            data_format,
            runtimes,
            threads=threads,
            head=head,
            out=output,
            report=report,
            scores=scores,
        )
        return
    if against or also_runtime:
        fail(
            ConfigError("--against", ["models and runtimes are compared on benchmarks: --format preferences or steps"])
        )
    from reward_service.registry.store import Store
    from reward_service.training import evaluate as evaluation
    from reward_service.training.dataset import read_feedback
    from reward_service.training.model import silence_transformers
    from reward_service.training.report import write_report

    silence_transformers()
    try:
        files = parse_files(data)
        feedback = read_feedback(FeedbackFormat(data_format.value).value, files)
        published = Store(store).resolve(name)
        rules = evaluation.published_rules(published) or evaluation.default_rules(published, feedback)
        backend = evaluation.load_backend(published, runtime.value, threads=threads)
        judged = evaluation.evaluate(published, backend, feedback, rules, [head] if head else [])
        flat = head is not None or len(published.manifest.outputs) == 1
        told = evaluation.report(published, backend.runtime, judged, files, len(feedback), flat=flat)
        text = json.dumps(told, indent=2) + "\n"
        if output is not None:
            output.write_text(text, encoding="utf-8")
        if scores is not None:
            with scores.open("w", encoding="utf-8") as stream:
                stream.writelines(json.dumps(line) + "\n" for line in evaluation.score_lines(judged))
        if report is not None:
            write_report(report, published, backend.runtime, judged, evaluation.published_history(published))
    except FAULTS as error:
        fail(error)
    sys.stdout.write(text)
