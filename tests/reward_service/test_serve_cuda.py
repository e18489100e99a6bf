"""`reward-service serve` on a CUDA device as a process of its own: real HTTP, many callers at once, real signals."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from reward_proto import ScoreReply

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

DEVICE = "cuda"
TIMEOUT_S = 60.0
TOLERANCE = 1e-4
MODELS = ("relevance", "factuality", "completeness")
TEXTS = [
    " ".join("".join(letter * (1 + i % 5) for letter in word) for word in ("ab", "cde", "f")) + f". {i}; on, and on."
    for i in range(48)
]


def serve(start_service: Callable[..., Any], store: Path, **placed: Any) -> Any:
    """A running service of the tiny models, each placed so."""
    models = [{"name": name, "runtime": "torch", "precision": "fp32", **placed} for name in MODELS]
    return start_service(store=str(store), models=models, cache={"memory_bytes": 0})


def score(url: str, texts: list[str]) -> list[dict[str, list[float]]]:
    """By text and model the segments' scores."""
    items = [{"prompt": "p", "response": text, "fields": {"question": "Who?"}} for text in texts]
    reply = httpx.post(f"{url}/v1/score", json={"items": items}, timeout=TIMEOUT_S)
    assert reply.status_code == 200, reply.text
    read = ScoreReply.model_validate(reply.json())
    return [
        {name: [segment.score for segment in score.segments or []] for name, score in result.scores.items()}
        for result in read.results
    ]


@pytest.fixture(scope="module")
def expected(start_service: Callable[..., Any], tiny_store: Path) -> list[dict[str, list[float]]]:
    """Scores on the CPU."""
    running = serve(start_service, tiny_store, device="cpu")
    try:
        return score(running.url, TEXTS)
    finally:
        running.end()


@pytest.fixture(
    scope="module", params=[{"device": DEVICE}, {"devices": [DEVICE], "replicas": 2}], ids=["one", "two_replicas"]
)
def url(request: pytest.FixtureRequest, start_service: Callable[..., Any], tiny_store: Path) -> Iterator[str]:
    """Where a service on the device listens; it must end well."""
    running = serve(start_service, tiny_store, **request.param)
    yield running.url
    assert running.end() == 0, "".join(running.log)


def test_one_request_is_scored_as_on_the_cpu(url: str, expected: list[dict[str, list[float]]]) -> None:
    found = score(url, TEXTS)
    for text, ours, wanted in zip(TEXTS, found, expected, strict=True):
        assert ours.keys() == set(MODELS)
        for name in MODELS:
            assert ours[name] == pytest.approx(wanted[name], rel=TOLERANCE, abs=TOLERANCE), (text, name)


def test_so_is_each_of_many_callers_at_once(url: str, expected: list[dict[str, list[float]]]) -> None:
    order = random.Random(0).choices(range(len(TEXTS)), k=300)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: score(url, [TEXTS[number]])[0], order))
    for number, ours in zip(order, found, strict=True):
        for name in MODELS:
            assert ours[name] == pytest.approx(expected[number][name], rel=TOLERANCE, abs=TOLERANCE)


def test_it_says_where_it_computes(url: str) -> None:
    models = httpx.get(f"{url}/v1/models", timeout=TIMEOUT_S).json()["models"]
    assert {model["runtime"] for model in models} == {"torch-fp32"}
    assert httpx.get(f"{url}/readyz", timeout=TIMEOUT_S).status_code == 200
