"""What a load came to. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reward_service.bench.load import Answer

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class JobFigures:
    """What one job got.

    Attributes:
        clients: That sent for it.
        requests: Sent.
        answered: Answered without an error of the whole request.
        items: Scored by every model that was asked.
        share: Of all jobs' input tokens, in [0, 1]; of their items where the service counts no tokens; None of nothing.
        latency_ms: p50, p90, p95, p99 and max of the answered requests; empty of none.
        errors: Requests and scores that failed, by code.
    """

    clients: int
    requests: int
    answered: int
    items: int
    share: float | None
    latency_ms: dict[str, float]
    errors: dict[str, int]


@dataclass(frozen=True, slots=True)
class Figures:
    """What all jobs got together.

    Attributes:
        duration_s: Of the load.
        requests: That were sent and have an answer or an error.
        answered: Answered without an error of the whole request.
        items: Scored by every model that was asked.
        scores: Given.
        cached: Of them, those computed before.
        items_per_s: Throughput.
        tokens_per_s: Real tokens of the answered requests' inputs.
        padded_tokens_per_s: Tokens computed for them, padding included.
        batch_fill: Real tokens of the computed ones, in [0, 1]; None where nothing was computed, or where cached scores
            came with tokens that were not.
        padding_share: 1 less `batch_fill`.
        latency_ms: p50, p90, p95, p99 and max of the answered requests; empty of none.
        request_errors: Requests that failed, by code.
        score_errors: Scores that are missing in answered requests, by code.
        jobs: Of each job, by its name.
    """

    duration_s: float
    requests: int
    answered: int
    items: int
    scores: int
    cached: int
    items_per_s: float
    tokens_per_s: float
    padded_tokens_per_s: float
    batch_fill: float | None
    padding_share: float | None
    latency_ms: dict[str, float]
    request_errors: dict[str, int]
    score_errors: dict[str, int]
    jobs: dict[str, JobFigures]


def figures_of(answers: Sequence[Answer], clients: Mapping[str, int], duration_s: float) -> Figures:
    """Sum up a load.

    Args:
        answers: In any order.
        clients: How many each job had.
        duration_s: Of the load.
    """
    answered = [answer for answer in answers if answer.code is None]
    input_tokens = sum(answer.input_tokens for answer in answered)
    padded_tokens = sum(answer.padded_tokens for answer in answered)
    fill = input_tokens / padded_tokens if padded_tokens and input_tokens <= padded_tokens else None
    items = sum(answer.items for answer in answered)
    of_second = 1 / duration_s if duration_s > 0 else 0.0
    return Figures(
        duration_s=duration_s,
        requests=len(answers),
        answered=len(answered),
        items=items,
        scores=sum(answer.scores for answer in answered),
        cached=sum(answer.cached for answer in answered),
        items_per_s=items * of_second,
        tokens_per_s=input_tokens * of_second,
        padded_tokens_per_s=padded_tokens * of_second,
        batch_fill=fill,
        padding_share=None if fill is None else 1 - fill,
        latency_ms=latency_ms([answer.latency_s for answer in answered]),
        request_errors=_sorted(Counter(answer.code for answer in answers if answer.code is not None)),
        score_errors=_sorted(sum((answer.failed for answer in answered), Counter[str]())),
        jobs=_jobs(answers, clients),
    )


def latency_ms(latencies_s: Sequence[float]) -> dict[str, float]:
    """Percentiles, interpolated linearly between neighbours, and the maximum."""
    if not latencies_s:
        return {}
    found = np.percentile(np.asarray(latencies_s), PERCENTILES) * 1000
    return {
        **{f"p{percent}": float(value) for percent, value in zip(PERCENTILES, found, strict=True)},
        "max": max(latencies_s) * 1000,
    }


def _jobs(answers: Sequence[Answer], clients: Mapping[str, int]) -> dict[str, JobFigures]:
    answered = [answer for answer in answers if answer.code is None]
    counts_tokens = any(answer.input_tokens for answer in answered)

    def got(some: Sequence[Answer]) -> int:
        return sum(answer.input_tokens if counts_tokens else answer.items for answer in some)

    total = got(answered)
    jobs = {}
    for job, number in clients.items():
        own = [answer for answer in answers if answer.job == job]
        own_answered = [answer for answer in own if answer.code is None]
        errors = sum((answer.failed for answer in own), Counter[str](a.code for a in own if a.code is not None))
        jobs[job] = JobFigures(
            clients=number,
            requests=len(own),
            answered=len(own_answered),
            items=sum(answer.items for answer in own_answered),
            share=got(own_answered) / total if total else None,
            latency_ms=latency_ms([answer.latency_s for answer in own_answered]),
            errors=_sorted(errors),
        )
    return jobs


def _sorted(errors: Counter[str]) -> dict[str, int]:
    """The most frequent first."""
    return dict(errors.most_common())
