import statistics
from collections import Counter

import numpy as np
import pytest

from reward_service.bench.figures import figures_of, latency_ms
from reward_service.bench.load import Answer


def test_percentiles_by_hand() -> None:
    # 1 to 101 ms: the percentile p is the value at place p of 0 to 100.
    assert latency_ms([n / 1000 for n in range(101, 0, -1)]) == pytest.approx(
        {"p50": 51, "p90": 91, "p95": 96, "p99": 100, "max": 101}
    )
    assert latency_ms([0.2, 0.1]) == pytest.approx({"p50": 150, "p90": 190, "p95": 195, "p99": 199, "max": 200})
    assert latency_ms([0.25]) == dict.fromkeys(["p50", "p90", "p95", "p99", "max"], 250)
    assert latency_ms([]) == {}


@pytest.mark.parametrize("size", [2, 3, 17, 500])
def test_percentiles_are_those_of_the_standard_library(size: int) -> None:
    values = np.random.default_rng(size).lognormal(size=size).tolist()
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    found = latency_ms(values)
    for percent in (50, 90, 95, 99):
        assert found[f"p{percent}"] == pytest.approx(1000 * cuts[percent - 1])
    assert found["max"] == 1000 * max(values)


def test_the_sum_of_a_load() -> None:
    answers = [
        Answer("a", 0.1, items=2, scores=4, cached=1, input_tokens=60, padded_tokens=80),
        Answer("a", 0.3, items=1, scores=3, failed=Counter(too_long=1), input_tokens=30, padded_tokens=40),
        Answer("a", 0.01, "overloaded"),
        Answer("b", 0.2, items=1, scores=2, input_tokens=30, padded_tokens=30),
        Answer("b", 9.0, "ReadTimeout"),
        Answer("b", 0.01, "overloaded"),
    ]
    figures = figures_of(answers, {"a": 2, "b": 1, "c": 1}, 2.0)
    assert (figures.requests, figures.answered, figures.items, figures.scores, figures.cached) == (6, 3, 4, 9, 1)
    assert (figures.items_per_s, figures.tokens_per_s, figures.padded_tokens_per_s) == (2, 60, 75)
    assert figures.batch_fill == pytest.approx(120 / 150)
    assert figures.padding_share == pytest.approx(30 / 150)
    assert figures.latency_ms["p50"] == pytest.approx(200)
    assert figures.latency_ms["max"] == pytest.approx(300)
    assert figures.request_errors == {"overloaded": 2, "ReadTimeout": 1}
    assert figures.score_errors == {"too_long": 1}
    assert {name: job.share for name, job in figures.jobs.items()} == {"a": 0.75, "b": 0.25, "c": 0.0}
    assert figures.jobs["a"].errors == {"too_long": 1, "overloaded": 1}
    assert (figures.jobs["b"].clients, figures.jobs["b"].requests, figures.jobs["b"].answered) == (1, 3, 1)
    assert figures.jobs["c"].latency_ms == {}


def test_nothing_is_made_up_where_nothing_came() -> None:
    figures = figures_of([Answer("", 0.1, "ConnectError")], {"": 1}, 0.0)
    assert (figures.batch_fill, figures.padding_share, figures.jobs[""].share) == (None, None, None)
    assert (figures.items_per_s, figures.latency_ms) == (0, {})


def test_cached_scores_leave_no_fill_to_tell() -> None:
    assert figures_of([Answer("", 0.1, items=2, input_tokens=50, padded_tokens=10)], {"": 1}, 1.0).batch_fill is None


def test_shares_are_of_items_where_no_tokens_are_counted() -> None:
    figures = figures_of([Answer("a", 0.1, items=3), Answer("b", 0.1, items=1)], {"a": 1, "b": 1}, 1.0)
    assert [job.share for job in figures.jobs.values()] == [0.75, 0.25]
