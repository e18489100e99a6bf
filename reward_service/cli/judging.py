"""`evaluate` on benchmarks: preferences and steps."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from reward_service.cli.faults import FAULTS, fail
from reward_service.cli.feedback_files import EvaluateFormat, parse_files


def judge(
    models: Sequence[str],
    store: Path,
    data: Sequence[str],
    data_format: EvaluateFormat,
    runtimes: Sequence[str],
    *,
    threads: int,
    head: str | None,
    out: Path | None,
    report: Path | None,
    scores: Path | None,
) -> None:
    """Judge models on a benchmark: the first one, and how far the others and other runtimes agree with it."""
    from reward_service.registry.store import Store
    from reward_service.training.benchmark import judge_benchmark, score_lines
    from reward_service.training.benchmark_files import read_preferences, read_steps
    from reward_service.training.benchmark_report import write_benchmark_report
    from reward_service.training.model import silence_transformers

    silence_transformers()
    try:
        files = parse_files(data)
        benchmark = read_preferences(files) if data_format is EvaluateFormat.PREFERENCES else read_steps(files)
        published = [Store(store).resolve(name) for name in models]
        judged = judge_benchmark(published, runtimes, benchmark, threads=threads, head=head)
        told = {"data": [str(file) for file in files], "n_rows": len(benchmark), **judged.figures}
        text = json.dumps(told, indent=2) + "\n"
        if out is not None:
            out.write_text(text, encoding="utf-8")
        if scores is not None:
            with scores.open("w", encoding="utf-8") as stream:
                stream.writelines(json.dumps(line) + "\n" for line in score_lines(judged))
        if report is not None:
            write_benchmark_report(report, judged, benchmark)
    except FAULTS as error:
        fail(error)
    sys.stdout.write(text)
