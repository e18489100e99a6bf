"""The report's plots, each as an address that holds its own image, so that the page needs nothing from outside."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from rl_client.offline.figures import REWARD_PREFIX
from rl_client.offline.overoptimisation import Course

NAME_CHARS = 30
"""A longer name would leave no room for the plot; captions and tables have it whole."""
WIDTH_INCHES, HEIGHT_INCHES = 5.0, 3.6
COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
# Names come from files: a dollar sign in one must not begin a formula.
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.size": 9, "text.parse_math": False}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def mean_plots(summaries: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """For each reward model the systems' means with their confidence intervals.

    Returns:
        What each plot shows, and its address.
    """
    names = dict.fromkeys(name for summary in summaries.values() for name in summary["figures"])
    rewards = [name for name in names if name.startswith(REWARD_PREFIX)]
    return [(f"Mean {name.removeprefix(REWARD_PREFIX)}", _draw(_means(summaries, name))) for name in rewards]


def pareto_plots(summaries: Mapping[str, Mapping[str, Any]], front: Sequence[str]) -> list[tuple[str, str]]:
    """For each two reward models where the systems stand; those on the front are filled."""
    names = dict.fromkeys(name for summary in summaries.values() for name in summary["figures"])
    rewards = [name for name in names if name.startswith(REWARD_PREFIX)]
    return [
        (
            f"{y.removeprefix(REWARD_PREFIX)} against {x.removeprefix(REWARD_PREFIX)}",
            _draw(_pareto(summaries, front, x, y)),
        )
        for x, y in combinations(rewards, 2)
    ]


def course_plots(runs: Mapping[str, Mapping[str, Course]]) -> list[tuple[str, str]]:
    """For each reward model its mean over the KL to the reference, one line a run, the peak marked."""
    models = dict.fromkeys(model for courses in runs.values() for model in courses)
    return [(f"{model} over KL", _draw(_courses(runs, model))) for model in models]


def _means(summaries: Mapping[str, Mapping[str, Any]], name: str) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        shown = [key for key, summary in summaries.items() if _mean(summary, name) is not None]
        for place, key in enumerate(shown):
            figure = summaries[key]["figures"][name]
            axes.errorbar(figure["mean"], -place, xerr=_bars(figure), fmt="o", capsize=3, color=_color(summaries, key))
        axes.set_yticks([-place for place in range(len(shown))], list(map(_short, shown)))
        axes.margins(y=0.3)
        axes.set_xlabel(_short(name.removeprefix(REWARD_PREFIX)))

    return draw


def _pareto(summaries: Mapping[str, Mapping[str, Any]], front: Sequence[str], x: str, y: str) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        for key, summary in summaries.items():
            if _mean(summary, x) is None or _mean(summary, y) is None:
                continue
            across, up = summary["figures"][x], summary["figures"][y]
            color = _color(summaries, key)
            face = color if key in front else "white"
            look = {"fmt": "o", "color": color, "markerfacecolor": face, "label": _short(key)}
            axes.errorbar(across["mean"], up["mean"], xerr=_bars(across), yerr=_bars(up), **look)
        axes.set(xlabel=_short(x.removeprefix(REWARD_PREFIX)), ylabel=_short(y.removeprefix(REWARD_PREFIX)))
        if axes.containers:
            axes.legend(frameon=False)

    return draw


def _courses(runs: Mapping[str, Mapping[str, Course]], model: str) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        for key, courses in runs.items():
            if model not in courses:
                continue
            course, color = courses[model], _color(runs, key)
            peak = int(course.reward.argmax())
            axes.plot(course.raw_kl, course.raw_reward, ".", color=color, alpha=0.25, markersize=3)
            axes.plot(course.kl, course.reward, color=color, label=_short(key))
            axes.plot(course.kl[peak], course.reward[peak], "*", color=color, markersize=10)
        axes.set(xlabel="KL to the reference, nats", ylabel=_short(model))
        axes.legend(frameon=False)

    return draw


def _mean(summary: Mapping[str, Any], name: str) -> float | None:
    mean: float | None = summary["figures"].get(name, {}).get("mean")
    return mean


def _bars(figure: Mapping[str, Any]) -> list[list[float]] | None:
    if figure["low"] is None:
        return None
    return [[max(0.0, figure["mean"] - figure["low"])], [max(0.0, figure["high"] - figure["mean"])]]


def _short(name: str) -> str:
    return name if len(name) <= NAME_CHARS else name[: NAME_CHARS - 1] + "…"


def _color(keys: Mapping[str, Any], key: str) -> str:
    return COLORS[list(keys).index(key) % len(COLORS)]


def _draw(draw: Callable[[Any], None]) -> str:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
        draw(figure.add_subplot())
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata=_NO_METADATA)
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
