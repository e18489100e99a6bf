"""The report's figures, as SVG text to stand in a page."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from reward_service.training.figures import JudgedSegments, calibration_bins, calibration_error
from reward_service.training.history import EpochFigures

SIZE_INCHES = (4.2, 3.4)
HISTOGRAM_BINS = 20
OK_COLOR, ERROR_COLOR, LINE_COLOR = "tab:green", "tab:red", "tab:blue"

_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.size": 9, "axes.spines.top": False}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def reliability_diagram(judged: JudgedSegments) -> str:
    """Share of ok segments over P(ok); a calibrated model follows the diagonal. The bars count segments."""

    def draw(axes: Any) -> None:
        bins = calibration_bins(judged.probability, judged.is_ok)
        counts = np.array([one.count for one in bins])
        x, y = [one.probability for one in bins], [one.ok_share for one in bins]
        axes.bar(x, counts / counts.max() * 0.3, width=0.05, color="0.85")
        axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
        axes.plot(x, y, marker="o", color=LINE_COLOR)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="P(ok)", ylabel="share that is ok")
        axes.set_title(f"Reliability, ECE {calibration_error(judged.probability, judged.is_ok):.3f}")

    return _svg(draw)


def roc_diagram(judged: JudgedSegments, auc: float) -> str:
    """Errors found over false alarms, for every threshold on P(ok)."""

    def draw(axes: Any) -> None:
        false_alarms, found, _ = roc_curve(~judged.is_ok, 1.0 - judged.probability)
        axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
        axes.plot(false_alarms, found, color=LINE_COLOR)
        axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="share of ok segments flagged", ylabel="share of errors flagged")
        axes.set_title(f"ROC, AUC {auc:.3f}")

    return _svg(draw)


def score_histogram(judged: JudgedSegments) -> str:
    """P(ok) of ok segments and of errors, each as shares of its own class."""

    def draw(axes: Any) -> None:
        bins = np.linspace(0, 1, HISTOGRAM_BINS + 1)
        for name, color, inside in (("ok", OK_COLOR, judged.is_ok), ("error", ERROR_COLOR, ~judged.is_ok)):
            if inside.any():
                weights = np.full(int(inside.sum()), 1.0 / inside.sum())
                label = f"{name} ({int(inside.sum())})"
                axes.hist(judged.probability[inside], bins, weights=weights, color=color, alpha=0.5, label=label)
        axes.set(xlim=(0, 1), xlabel="P(ok)", ylabel="share of the class")
        axes.set_title("Scores by true class")
        axes.legend(frameon=False)

    return _svg(draw)


def margin_histogram(margins: NDArray[np.float64]) -> str:
    """The winner's score less the loser's; what lies left of 0 is wrong."""

    def draw(axes: Any) -> None:
        axes.hist(margins, HISTOGRAM_BINS, color=LINE_COLOR, alpha=0.6)
        axes.axvline(0, color=ERROR_COLOR, linewidth=1)
        axes.set(xlabel="winner's score less loser's", ylabel="pairs")
        axes.set_title(f"Margins, {(margins > 0).mean():.1%} above 0")

    return _svg(draw)


def learning_curve(history: Sequence[EpochFigures]) -> str:
    """Training and held-out loss over epochs."""

    def draw(axes: Any) -> None:
        epochs = np.arange(1, len(history) + 1)
        axes.plot(epochs, [epoch.train_loss for epoch in history], marker=".", color="0.5", label="training")
        held_out = [np.nan if epoch.held_out_loss is None else epoch.held_out_loss for epoch in history]
        axes.plot(epochs, held_out, marker=".", color=LINE_COLOR, label="held out")
        axes.set(xlabel="epoch", ylabel="loss")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_title("Loss")
        axes.legend(frameon=False)

    return _svg(draw)


def _svg(draw: Callable[[Any], None]) -> str:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        draw(figure.add_subplot())
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata=_NO_METADATA)
    text = stream.getvalue()
    return text[text.index("<svg") :]
