"""The command `export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from reward_service.cli.faults import FAULTS, fail
from reward_service.cli.feedback_files import FeedbackFormat, parse_files
from reward_service.errors import ConfigError


class StoredRuntime(StrEnum):
    """What can compute the scores of a stored model."""

    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"


def export(
    names: Annotated[list[str], typer.Argument(help="Each a name, name@alias or name@version.")],
    store: Annotated[Path, typer.Option(help="Where published versions live.")],
    runtime: Annotated[StoredRuntime, typer.Option(help="onnxruntime.")] = StoredRuntime.ONNXRUNTIME,
    precision: Annotated[str, typer.Option(help="fp32.")] = "fp32",
    data: Annotated[list[str] | None, typer.Option(help="Feedback to compare on; the model's own otherwise.")] = None,
    data_format: Annotated[FeedbackFormat, typer.Option("--format", help="Of --data.")] = FeedbackFormat.QA_FEEDBACK,
) -> None:
    """Export published models to ONNX; nothing is written of one unless it scores as torch does."""
    from reward_service.registry.store import Store
    from reward_service.training.dataset import read_feedback
    from reward_service.training.export_onnx import export_onnx
    from reward_service.training.model import silence_transformers

    silence_transformers()
    try:
        if runtime is not StoredRuntime.ONNXRUNTIME or precision != "fp32":
            raise ConfigError("export", [f"there is onnxruntime in fp32, not {runtime.value} in {precision}"])
        models = Store(store)
        items = list(read_feedback(data_format.value, parse_files(data)).texts()) if data else None
        for name in names:
            path, parity = export_onnx(models, models.resolve(name), items)
            typer.echo(
                f"{path}: {parity.n_segments} scores, largest difference from torch {parity.max_abs_diff:.2g} "
                f"(allowed {parity.tolerance:g}), {parity.label_flips} labels differ"
            )
    except FAULTS as error:
        fail(error)
