"""Reward models judged on a benchmark: one by one, against each other, and across runtimes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reward_service.errors import ConfigError
from reward_service.registry.store import Published
from reward_service.training.benchmark_figures import (
    Decisions,
    accuracy_figures,
    by_subset,
    calibration_figures,
    compare,
    preference_decisions,
    step_decisions,
    step_figures,
    strength_figures,
)
from reward_service.training.benchmark_files import Benchmark
from reward_service.training.benchmark_scores import BenchmarkScores, score_benchmark
from reward_service.training.evaluate import load_backend


@dataclass(frozen=True, slots=True)
class JudgedModel:
    """One model on one runtime.

    Attributes:
        scores: Of each row.
        decisions: What they decide.
        figures: See `judge_benchmark`.
    """

    scores: BenchmarkScores
    decisions: Decisions
    figures: dict[str, Any]


@dataclass(frozen=True, slots=True)
class JudgedBenchmark:
    """All of them.

    Attributes:
        models: The first is the one that is judged; then the others, each on every runtime.
        figures: See `judge_benchmark`.
    """

    models: list[JudgedModel]
    figures: dict[str, Any]


def judge_benchmark(
    published: Sequence[Published],
    runtimes: Sequence[str],
    benchmark: Benchmark,
    *,
    threads: int = 1,
    head: str | None = None,
) -> JudgedBenchmark:
    """Score a benchmark with each model on each runtime.

    Args:
        published: Versions; the first one is judged, the others compared with it.
        runtimes: The first one is judged, the others compared with it.
        benchmark: Preferences or steps.
        threads: Of a runtime.
        head: Which head of each version that has several.

    Returns:
        The figures: the first model's on the first runtime at the top, all models' under `models`, `agreement` between
        models on the first runtime, and `stability` of each model across runtimes.

    Raises:
        ConfigError: A model cannot take the rows, or has no such head.
        StoreError: A version is not exported for a runtime.
        ModelFailedError: A runtime raised, or gave NaN or infinity.
    """
    by_model = [
        [_judge(one, runtime, benchmark, threads, _head_of(one, head)) for runtime in dict.fromkeys(runtimes)]
        for one in published
    ]
    firsts = [on_runtimes[0] for on_runtimes in by_model]
    models = [model for on_runtimes in by_model for model in on_runtimes]
    agreement = [
        {"first": first.scores.name, "second": second.scores.name, **compare(first.decisions, second.decisions)}
        for place, first in enumerate(firsts)
        for second in firsts[place + 1 :]
    ]
    stability = [
        {
            "model": first.scores.name,
            "first": first.scores.runtime,
            "second": other.scores.runtime,
            **compare(first.decisions, other.decisions),
        }
        for first, *others in by_model
        for other in others
    ]
    figures = {
        **firsts[0].figures,
        "models": [model.figures for model in models],
        "agreement": agreement,
        "stability": stability,
    }
    return JudgedBenchmark(models, figures)


def _head_of(published: Published, head: str | None) -> str | None:
    """The head that is asked for, of versions that have several."""
    return head if len(published.manifest.outputs) > 1 else None


def _judge(published: Published, runtime: str, benchmark: Benchmark, threads: int, head: str | None) -> JudgedModel:
    scores = score_benchmark(published, load_backend(published, runtime, threads=threads), benchmark, head)
    if benchmark.steps:
        decisions = step_decisions(benchmark.steps, scores)
        if not len(decisions.right):
            raise ConfigError("--data", ["no step has a label"])
        more: dict[str, Any] = {"n_steps": len(decisions.right), **step_figures(benchmark.steps, scores, decisions)}
    else:
        decisions = preference_decisions(benchmark.preferences, scores)
        more = {"n_pairs": len(decisions.right), "strength": strength_figures(benchmark.preferences, decisions)}
    overall = accuracy_figures(decisions)
    subsets = by_subset(decisions)
    name, _, version = scores.name.partition("@")
    figures = {
        "name": name,
        "version": version,
        "runtime": scores.runtime,
        **more,
        "accuracy": overall["accuracy"],
        "accuracy_interval": [overall["low"], overall["high"]],
        "mean_of_subsets": sum(one["accuracy"] for one in subsets.values()) / len(subsets),
        "subsets": subsets,
        "calibration": calibration_figures(decisions),
    }
    return JudgedModel(scores, decisions, figures)


def score_lines(judged: JudgedBenchmark) -> Iterator[dict[str, Any]]:
    """Every score as an object: `model`, `version`, `runtime`, `index` of the row, `scores` in the row's order.

    A preference's scores are those of the chosen responses, then of the rejected ones; a solution's of its steps.
    """
    for model in judged.models:
        name, _, version = model.scores.name.partition("@")
        for index, values in enumerate(model.scores.rows):
            row = {"model": name, "version": version, "runtime": model.scores.runtime}
            yield {**row, "index": index, "scores": values.tolist()}
