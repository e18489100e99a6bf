"""The command `export`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reward_service.cli.faults import FAULTS, fail
from reward_service.cli.feedback_files import FeedbackFormat, parse_files
from reward_service.config import Precision, Runtime
from reward_service.errors import ParityError, StoreError

if TYPE_CHECKING:
    from reward_service.registry.exports import ExportRecord


class StoredRuntime(StrEnum):
    """What can compute the scores of a stored model."""

    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


def export(
    names: Annotated[list[str], typer.Argument(help="Each a name, name@alias or name@version.")],
    store: Annotated[Path, typer.Option(help="Where published versions live.")],
    runtime: Annotated[Runtime, typer.Option(help="auto: all that are installed.")] = Runtime.ONNXRUNTIME,
    precision: Annotated[Precision | None, typer.Option(help="fp32 if absent; with auto, all.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="Feedback to compare on; the model's own otherwise.")] = None,
    data_format: Annotated[FeedbackFormat, typer.Option("--format", help="Of --data.")] = FeedbackFormat.QA_FEEDBACK,
) -> None:
    """Export published models; nothing is written of one unless it scores as torch does in fp32.

    With --runtime auto what does not pass is told and left out.
    """
    from reward_service.registry.store import Store
    from reward_service.training import export as exports
    from reward_service.training.dataset import read_feedback
    from reward_service.training.model import silence_transformers

    silence_transformers()
    try:
        models = Store(store)
        items = list(read_feedback(data_format.value, parse_files(data)).texts()) if data else None
        for published in [models.resolve(name) for name in names]:
            if runtime is not Runtime.AUTO:
                _tell(*exports.export(published, runtime, precision or Precision.FP32, items))
                continue
            for one, other in exports.offered():
                if precision not in (None, other):
                    continue
                try:
                    _tell(*exports.export(published, one, other, items))
                except (ParityError, StoreError) as error:
                    typer.echo(f"left out: {error}", err=True)
    except FAULTS as error:
        fail(error)


def _tell(path: Path, record: "ExportRecord") -> None:
    for head, figures in record.parity.items():
        typer.echo(
            f"{path}: {head}: {figures.n_scores} scores, largest difference from torch {figures.max_abs_diff:.2g} "
            f"(allowed {figures.max_allowed:.2g}), {figures.label_flips} labels differ"
        )
