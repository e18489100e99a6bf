"""The page of a benchmark: one HTML file that needs nothing from outside itself. Every text is escaped."""

import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reward_service.training import report_figures
from reward_service.training.benchmark import JudgedBenchmark, JudgedModel
from reward_service.training.benchmark_files import Asked, Benchmark
from reward_service.training.figures import JudgedSegments
from reward_service.training.report import STYLE, table

WORST_ROWS = 12


def write_benchmark_report(path: Path, judged: JudgedBenchmark, benchmark: Benchmark) -> None:
    """Write the page.

    Args:
        path: The file; its folder is made.
        judged: The models.
        benchmark: What they were judged on.
    """
    first = judged.models[0]
    title = html.escape(f"{first.scores.name} on {len(benchmark)} rows")
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title>",
        f"<style>{STYLE}</style><h1>{title}</h1><h2>Accuracy</h2>",
        _subset_table(judged),
        "<h2>Figures</h2>",
        _figure_table(judged),
        *_comparison("Agreement between models", judged.figures["agreement"]),
        *_comparison("Stability across runtimes", judged.figures["stability"]),
        "<h2>Calibration</h2>",
        _reliability(first),
        "<h2>Worst rows</h2>",
        *_worst(first, benchmark),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts) + "</html>\n", encoding="utf-8", errors="replace")


def _named(model: JudgedModel) -> str:
    return f"{model.scores.name} {model.scores.runtime}"


def _subset_table(judged: JudgedBenchmark) -> str:
    names = list(judged.models[0].figures["subsets"])
    rows = []
    for name in names:
        own = [model.figures["subsets"][name] for model in judged.models]
        rows.append([name, str(own[0]["n"]), *(_share(one["accuracy"], one["low"], one["high"]) for one in own)])
    overall = [(model.figures["accuracy"], *model.figures["accuracy_interval"]) for model in judged.models]
    rows.append(["all rows", str(len(judged.models[0].decisions.right)), *(_share(*one) for one in overall)])
    means = [f"{model.figures['mean_of_subsets']:.3f}" for model in judged.models]
    rows.append(["mean of subsets", "", *means])
    return table(["subset", "n", *map(_named, judged.models)], rows)


def _share(accuracy: float, low: float, high: float) -> str:
    return f"{accuracy:.3f} ({low:.3f} to {high:.3f})"


def _figure_table(judged: JudgedBenchmark) -> str:
    rows = []
    for name in ("auc", "f1_wrong", "kappa", "first_error", "ece", "brier", "spearman", "kendall"):
        values = [_find(model.figures, name) for model in judged.models]
        if any(value is not None for value in values):
            rows.append([name, *("–" if value is None else f"{value:.4g}" for value in values)])
    return table(["figure", *map(_named, judged.models)], rows)


def _find(figures: dict[str, Any], name: str) -> float | None:
    for part in (figures, figures["calibration"] or {}, figures.get("strength") or {}):
        if name in part:
            value: float | None = part[name]
            return value
    return None


def _comparison(title: str, compared: Sequence[dict[str, Any]]) -> Iterator[str]:
    if compared:
        rows = [
            ["–" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in one.values()]
            for one in compared
        ]
        yield f"<h2>{title}</h2>" + table(list(compared[0]), rows)


def _reliability(model: JudgedModel) -> str:
    decisions = model.decisions
    if decisions.probability is None:
        return "<p>Differences of a classifier's scores are no probabilities.</p>"
    probability, truth = decisions.probability, decisions.truth
    if decisions.of_pairs:
        probability, truth = np.maximum(probability, 1 - probability), decisions.right
    nothing = np.zeros(len(truth), dtype=np.int64)
    return report_figures.reliability_diagram(JudgedSegments(truth, decisions.right, probability, nothing))


def _worst(model: JudgedModel, benchmark: Benchmark) -> Iterator[str]:
    """Preferences by how far the rejected response leads; solutions by how sure the model is of a wrong mark."""
    if benchmark.preferences:
        for index in np.argsort(model.decisions.margins, kind="stable")[:WORST_ROWS].tolist():
            pair = benchmark.preferences[index]
            yield _asked(pair.asked, f"margin {model.decisions.margins[index]:.3f}")
            for name, css, texts in (("chosen", "ok", pair.chosen), ("rejected", "error", pair.rejected)):
                for text in texts:
                    yield _line(name, css, text, "")
        return
    sure = [
        min(
            ((value if label else -value) for value, label in zip(own, row.labels, strict=True) if label is not None),
            default=np.inf,
        )
        for row, own in zip(benchmark.steps, model.scores.rows, strict=True)
    ]
    for index in np.argsort(sure, kind="stable")[:WORST_ROWS].tolist():
        solution = benchmark.steps[index]
        yield _asked(solution.asked, "")
        for text, label, value in zip(solution.steps, solution.labels, model.scores.rows[index], strict=True):
            css = {True: "ok", False: "error", None: "left-out"}[label]
            yield _line(f"{value:.3f}", css, text, f"people: {css}")


def _asked(asked: Asked, told: str) -> str:
    heading = html.escape(", ".join(part for part in (asked.place, asked.subset, told) if part))
    return f"<h4>{heading}</h4><div class='q'>{html.escape(asked.prompt)}</div>"


def _line(name: str, css: str, text: str, tip: str) -> str:
    return (
        f"<p class='t'><span class='m'>{html.escape(name)}</span>"
        f"<span class='s {css}' title='{html.escape(tip)}'>{html.escape(text)}</span></p>"
    )
