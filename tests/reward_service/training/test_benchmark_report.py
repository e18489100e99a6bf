from pathlib import Path

import numpy as np

from reward_service.training.benchmark import JudgedBenchmark, JudgedModel
from reward_service.training.benchmark_figures import (
    accuracy_figures,
    by_subset,
    calibration_figures,
    preference_decisions,
)
from reward_service.training.benchmark_files import Asked, Benchmark, PreferenceRow
from reward_service.training.benchmark_report import write_benchmark_report
from reward_service.training.benchmark_scores import BenchmarkScores

HOSTILE = "</style><script>alert('x')</script> \"&\" \x07\udcff"


def judged(rows: list[PreferenceRow], *, probability: bool) -> JudgedBenchmark:
    values = [np.array([float(index), 1.5]) for index in range(len(rows))]
    scores = BenchmarkScores("m@v", "torch-fp32", probability, values)
    decisions = preference_decisions(rows, scores)
    overall = accuracy_figures(decisions)
    figures = {
        "accuracy": overall["accuracy"],
        "accuracy_interval": [overall["low"], overall["high"]],
        "mean_of_subsets": 0.5,
        "subsets": by_subset(decisions),
        "calibration": calibration_figures(decisions),
        "strength": None,
    }
    return JudgedBenchmark([JudgedModel(scores, decisions, figures)], {**figures, "agreement": [], "stability": []})


def test_no_text_becomes_markup_and_the_worst_rows_come_first(tmp_path: Path) -> None:
    rows = [
        PreferenceRow(Asked(f"row {number}", HOSTILE, {}, HOSTILE), (f"good {HOSTILE}",), (f"bad {HOSTILE}",))
        for number in range(3)
    ]
    path = tmp_path / "pages" / "a.html"
    write_benchmark_report(path, judged(rows, probability=False), Benchmark(preferences=rows))
    text = path.read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("</style>") == 1 + text.count("<style type")
    assert text.index("row 0") < text.index("row 1") < text.index("row 2")
    assert "0.333 (" in text
    assert "Reliability" in text


def test_a_classifiers_preferences_have_no_reliability(tmp_path: Path) -> None:
    rows = [PreferenceRow(Asked("row", "p", {}, "all"), ("a",), ("b",))]
    write_benchmark_report(tmp_path / "a.html", judged(rows, probability=True), Benchmark(preferences=rows))
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "are no probabilities" in text
    assert "Reliability" not in text
