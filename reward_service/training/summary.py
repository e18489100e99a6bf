"""What the command line shows of trained models."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from reward_service.training.train import TrainedModel

FIGURES = ("n_segments", "n_pairs", "accuracy", "auc", "f1_error", "f1_ok", "loss")
"""Held-out figures in the order of the table's columns."""

_COUNTS = frozenset({"n_segments", "n_pairs"})


def metrics_table(trained: Sequence[TrainedModel]) -> Table:
    """Held-out figures of models, a row each; of a network, a row for each head."""
    table = Table(title="Reward models on held-out feedback")
    for column in ("model", "version", *FIGURES, "seconds"):
        table.add_column(column, justify="left" if column in {"model", "version"} else "right", no_wrap=True)
    for model in trained:
        published = model.published
        seconds = "kept" if model.skipped else f"{model.seconds:.1f}"
        outputs = published.manifest.outputs
        for output in outputs:
            name = published.name if len(outputs) == 1 else f"{published.name}: {output.name}"
            cells = [_cell(figure, output.metrics.get(figure)) for figure in FIGURES]
            table.add_row(name, published.version, *cells, seconds)
    return table


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if name in _COUNTS else f"{value:.3f}"
