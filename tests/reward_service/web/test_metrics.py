import statistics
import threading
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from reward_service.core.worker import BatchReport
from reward_service.web.metrics import MAX_UNCOUNTED, Metrics

BODY = {"items": [{"response": "Hello there."}, {"response": "Hi."}], "models": ["factuality"]}


def scrape(service: Any) -> dict[str, Any]:
    reply = service.request("GET", "/metrics")
    assert reply.headers["Content-Type"].startswith("text/plain")
    return {family.name: family for family in text_string_to_metric_families(reply.text)}


def test_every_promised_metric_is_there_with_its_labels(service: Any) -> None:
    assert service.score(BODY, headers={"X-Client-Job": "demo"}).status_code == 200
    assert service.score("{").status_code == 422
    families = scrape(service)

    def labels(name: str, suffix: str = "") -> set[str]:
        sample = next(s for s in families[name].samples if s.name == f"{name}{suffix}")
        return set(sample.labels)

    assert labels("reward_request_duration_seconds", "_count") == {"endpoint", "client_job"}
    for stage in ("tokenize", "queue", "inference"):
        assert labels(f"reward_{stage}_duration_seconds", "_count") == {"model"}
    for name in ("reward_batch_items", "reward_batch_padded_tokens", "reward_score"):
        assert labels(name, "_count") == {"model"}
    assert labels("reward_requests", "_total") == {"endpoint", "client_job", "code"}
    assert labels("reward_rejected", "_total") == {"reason"}
    assert labels("reward_tokens", "_total") == {"model", "kind"}
    assert labels("reward_job_padded_tokens", "_total") == {"model", "client_job"}
    assert labels("reward_truncated", "_total") == {"model"}
    assert labels("reward_queue_items") == labels("reward_queue_tokens") == {"model"}
    assert labels("reward_model_info") == {"model", "version", "runtime"}


def test_counts_are_right(service: Any) -> None:
    for _ in range(2):
        service.score(BODY, headers={"X-Client-Job": "demo"})
    service.score({**BODY, "models": ["nobody"]}, headers={"X-Client-Job": "demo"})
    requests = {"endpoint": "/v1/score", "client_job": "demo"}
    assert service.metric("reward_requests_total", **requests, code="200") == 2
    assert service.metric("reward_requests_total", **requests, code="404") == 1
    assert service.metric("reward_request_duration_seconds_count", **requests) == 3
    assert service.metric("reward_rejected_total", reason="unknown_model") == 1
    assert service.metric("reward_tokenize_duration_seconds_count", model="factuality") == 2
    assert service.metric("reward_queue_duration_seconds_count", model="factuality") == 4
    assert service.metric("reward_inference_duration_seconds_count", model="factuality") == 2
    assert service.metric("reward_batch_items_sum", model="factuality") == 4
    assert service.metric("reward_score_count", model="factuality") == 4
    # [CLS] [SEP] blank text [SEP]: 12 and 3 bytes of text, so 16 and 7 tokens, padded to 16.
    assert service.metric("reward_tokens_total", model="factuality", kind="real") == 2 * (16 + 7)
    assert service.metric("reward_tokens_total", model="factuality", kind="padding") == 2 * 9
    assert service.metric("reward_batch_padded_tokens_sum", model="factuality") == 2 * 32
    assert service.metric("reward_job_padded_tokens_total", model="factuality", client_job="demo") == 2 * 32
    assert service.metric("reward_queue_items", model="factuality") == 0
    assert service.metric("reward_model_info", model="factuality", version="9d1b7703aa52", runtime="fake-fp32") == 1


def test_mean_and_spread_of_the_scores_can_be_told(service: Any) -> None:
    scores = (0.5, -2.0, 3.0, 0.0, -0.25)
    service.metrics.batch_done(BatchReport("m", 5, 10, 10, 0.1, (0.0,) * 5, (("head", scores),)))
    positive, negative = (
        service.metric("reward_score_magnitude_total", model="head", sign=sign) for sign in ("positive", "negative")
    )
    count, squares = (
        service.metric("reward_score_count", model="head"),
        service.metric("reward_score_squares_total", model="head"),
    )
    mean = (positive - negative) / count
    assert (positive, negative, count) == (3.5, 2.25, 5)
    assert mean == pytest.approx(statistics.fmean(scores))
    assert squares / count - mean**2 == pytest.approx(statistics.pvariance(scores))


def test_latency_buckets_run_from_a_millisecond_to_a_minute(service: Any) -> None:
    service.score(BODY)
    samples = scrape(service)["reward_request_duration_seconds"].samples
    bounds = [float(sample.labels["le"]) for sample in samples if sample.name.endswith("_bucket")]
    assert min(bounds) == 0.001
    assert max(bound for bound in bounds if bound != float("inf")) == 60


def test_jobs_beyond_the_cap_share_a_label(make_service: Callable[..., Any]) -> None:
    service = make_service(max_client_jobs=2)
    for job in ("a", "b", "c", "d", "a", ""):
        service.score(BODY, headers={"X-Client-Job": job})
    counted = {
        job: service.metric("reward_requests_total", endpoint="/v1/score", client_job=job, code="200")
        for job in ("a", "b", "c", "other", "none")
    }
    assert counted == {"a": 2, "b": 1, "c": None, "other": 2, "none": 1}


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ('a"b\\c{}=,', 'a"b\\c{}=,'),
        ("a\nb\tc", "a?b?c"),
        ("\x00\x7f\u2028\u202e\ud800z", "?????z"),
        ("Zug 7 – käse 😀", "Zug 7 – käse 😀"),
        ("x" * 100, "x" * 64),
    ],
)
def test_a_job_of_any_name_leaves_the_page_readable(service: Any, given: str, label: str) -> None:
    service.metrics.request_done("/v1/score", given, 200, 0.1)
    samples = scrape(service)["reward_requests"].samples
    jobs = [sample.labels["client_job"] for sample in samples if sample.name == "reward_requests_total"]
    assert label in jobs


def test_the_process_and_its_workers_are_shown(service: Any) -> None:
    families = scrape(service)
    assert {sample.labels["model"]: sample.value for sample in families["reward_worker_alive"].samples} == {
        "relevance": 1,
        "factuality": 1,
        "completeness": 1,
    }
    assert families["process_resident_memory_bytes"].samples[0].value > 1e6
    assert families["process_start_time_seconds"].samples[0].value > 1e9
    service.scorer.sources[0].close(20.0)
    assert service.metric("reward_worker_alive", model="relevance") == 0
    assert service.metric("reward_worker_alive", model="factuality") == 1


@pytest.mark.parametrize("path", ["/v1/../secret", "/x" * 50])
def test_invented_paths_share_a_label(service: Any, path: str) -> None:
    service.request("GET", path)
    assert service.metric("reward_requests_total", endpoint="unknown", client_job="none", code="404") == 1


def test_nothing_is_counted_before_it_is_asked_for_and_little_is_kept() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, 10)
    for _ in range(MAX_UNCOUNTED - 1):
        metrics.encoded("m", 0.5, 1)
    assert len(metrics._uncounted) == MAX_UNCOUNTED - 1
    metrics.encoded("m", 0.5, 1)
    assert len(metrics._uncounted) == 0
    metrics.encoded("m", 0.5, 1)
    assert f'reward_truncated_total{{model="m"}} {MAX_UNCOUNTED + 1:.1f}' in generate_latest(registry).decode()
    assert len(metrics._uncounted) == 0


def test_many_threads_lose_no_count() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, 10)

    def tell() -> None:
        for _ in range(1000):
            metrics.request_done("/v1/score", "job", 200, 0.1)

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        generate_latest(registry)
    labels = {"endpoint": "/v1/score", "client_job": "job"}
    assert registry.get_sample_value("reward_requests_total", {**labels, "code": "200"}) == 4000
    assert registry.get_sample_value("reward_request_duration_seconds_count", labels) == 4000
