"""The contract's metrics, on the page that a real service process answers with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 60.0
JOB = 'ppo "7" \\ {x="y"}'

WITHOUT_SUM = {"reward_score"}
"""Histograms that reach below zero; the library gives them no `_sum`, which could fall."""

# Written down from the contract and the docs, not from the code: name, type, labels.
CONTRACT = [
    ("reward_request_duration_seconds", "histogram", {"endpoint", "client_job"}),
    ("reward_tokenize_duration_seconds", "histogram", {"model"}),
    ("reward_queue_duration_seconds", "histogram", {"model"}),
    ("reward_inference_duration_seconds", "histogram", {"model"}),
    ("reward_batch_items", "histogram", {"model"}),
    ("reward_batch_padded_tokens", "histogram", {"model"}),
    ("reward_score", "histogram", {"model"}),
    ("reward_score_magnitude_total", "counter", {"model", "sign"}),
    ("reward_score_squares_total", "counter", {"model"}),
    ("reward_requests_total", "counter", {"endpoint", "client_job", "code"}),
    ("reward_rejected_total", "counter", {"reason"}),
    ("reward_tokens_total", "counter", {"model", "kind"}),
    ("reward_truncated_total", "counter", {"model"}),
    ("reward_cache_requests_total", "counter", {"model", "result"}),
    ("reward_queue_items", "gauge", {"model"}),
    ("reward_queue_tokens", "gauge", {"model"}),
    ("reward_queue_limit_items", "gauge", set()),
    ("reward_queue_limit_tokens", "gauge", set()),
    ("reward_model_info", "gauge", {"model", "version", "runtime"}),
    ("reward_worker_alive", "gauge", {"model"}),
    ("reward_ledger_scores_total", "counter", {"event"}),
    ("reward_ledger_errors_total", "counter", set()),
    ("reward_ledger_up", "gauge", set()),
    ("reward_ledger_pending_scores", "gauge", set()),
    ("reward_ledger_pending_bytes", "gauge", set()),
]


@pytest.fixture(scope="module")
def page(start_service: Callable[..., Any], tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a service says of itself after a score and a refusal."""
    service = start_service(
        store=str(tiny_store),
        models=[{"name": "factuality", "runtime": "onnxruntime"}],
        limits={"max_queue_items": 2000, "max_queue_tokens": 50000},
        ledger={"path": str(tmp_path_factory.mktemp("ledger") / "ledger.db")},
    )
    with httpx.Client(base_url=service.url, timeout=TIMEOUT_S, headers={"X-Client-Job": JOB}) as http:
        items = [{"prompt": "p", "response": response} for response in ("Yes.", "No, not at all. Or is it?")]
        assert http.post("/v1/score", json={"items": items}).status_code == 200
        assert http.post("/v1/score", content=b"{").status_code == 422
        reply = http.get("/metrics")
    assert service.end() == 0
    assert reply.headers["Content-Type"].startswith("text/plain; version=")
    return reply.text


@pytest.mark.parametrize(("name", "kind", "labels"), CONTRACT, ids=[name for name, _, _ in CONTRACT])
def test_a_metric_of_the_contract_is_there(page: str, name: str, kind: str, labels: set[str]) -> None:
    families = {family.name: family for family in text_string_to_metric_families(page)}
    family = families[name.removesuffix("_total")]
    assert family.type == kind
    parts = {f"{name}_bucket", f"{name}_count"} | (set() if name in WITHOUT_SUM else {f"{name}_sum"})
    shown = parts if kind == "histogram" else {name}
    samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    assert {sample.name for sample in samples} == shown
    assert {frozenset(set(sample.labels) - {"le"}) for sample in samples} == {frozenset(labels)}


def test_a_job_keeps_its_name(page: str) -> None:
    jobs = {sample.labels.get("client_job") for f in text_string_to_metric_families(page) for sample in f.samples}
    assert jobs == {None, JOB}


def test_the_limits_are_those_of_the_settings(page: str) -> None:
    assert "\nreward_queue_limit_items 2000.0\n" in page
    assert "\nreward_queue_limit_tokens 50000.0\n" in page


def test_latency_buckets_run_from_a_millisecond_to_a_minute(page: str) -> None:
    for family in text_string_to_metric_families(page):
        if family.name.endswith("_duration_seconds"):
            bounds = {float(sample.labels["le"]) for sample in family.samples if sample.name.endswith("_bucket")}
            assert (min(bounds), max(bounds - {float("inf")})) == (0.001, 60)


def test_every_metric_of_the_service_is_documented(page: str) -> None:
    text = (Path(__file__).parents[3] / "docs" / "service.md").read_text(encoding="utf-8")
    names = [family.name for family in text_string_to_metric_families(page) if family.name.startswith("reward_")]
    names = [name for name in names if not name.endswith("_created")]
    assert [name for name in names if f"`{name}`" not in text and f"`{name}_total`" not in text] == []
