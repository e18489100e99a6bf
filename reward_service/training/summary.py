"""What the command line shows of trained models."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from reward_service.training.train import TrainedModel

FIGURES = ("n_segments", "n_pairs", "accuracy", "auc", "f1_error", "f1_ok", "loss")
"""Held-out figures in the order of the table's columns."""

_COUNTS = frozenset({"n_segments", "n_pairs"})


def metrics_table(trained: Sequence[TrainedModel]) -> Table:
    """Held-out figures of models, a row each."""
    table = Table(title="Reward models on held-out feedback")
    for column in ("model", "version", *FIGURES, "seconds"):
        table.add_column(column, justify="left" if column in {"model", "version"} else "right", no_wrap=True)
    for model in trained:
        metrics = model.published.manifest.metrics
        cells = [_cell(name, metrics.get(name)) for name in FIGURES]
        seconds = "kept" if model.skipped else f"{model.seconds:.1f}"
        table.add_row(model.published.name, model.published.version, *cells, seconds)
    return table


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if name in _COUNTS else f"{value:.3f}"
