"""A process with two threads for each model: what comes alone, and what many callers send at once."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from reward_proto import ScoreReply

TIMEOUT_S = 60.0
RUNTIMES = {"relevance": "onnxruntime", "factuality": "openvino", "completeness": "torch"}
TEXTS = ["".join(random.Random(i).choices("abc de, fg. ", k=5 + 9 * (i % 17))) + f"x{i}." for i in range(40)]


@pytest.fixture(scope="module")
def url(start_service: Callable[..., Any], tiny_store: Path) -> str:
    models = [{"name": name, "runtime": runtime, "precision": "fp32"} for name, runtime in RUNTIMES.items()]
    running = start_service(store=str(tiny_store), models=models, cache={"memory_bytes": 0}, batching={"threads": 2})
    return str(running.url)


def score(url: str, texts: list[str]) -> list[dict[str, Any]]:
    items = [{"prompt": "p", "response": text, "fields": {"question": "Who?"}} for text in texts]
    reply = httpx.post(f"{url}/v1/score", json={"items": items}, timeout=TIMEOUT_S)
    assert reply.status_code == 200, reply.text
    read = ScoreReply.model_validate(reply.json())
    return [
        {
            name: [segment.score for segment in found.segments] if found.segments else found.sequence_score
            for name, found in result.scores.items()
        }
        for result in read.results
    ]


def test_many_callers_get_the_scores_of_one_alone(url: str) -> None:
    alone = {text: score(url, [text])[0] for text in TEXTS}
    assert all(set(found) == set(RUNTIMES) and None not in found.values() for found in alone.values())
    rng = random.Random(0)
    requests = [rng.sample(TEXTS, k=rng.choice([1, 1, 2, 7, 16])) for _ in range(60)]
    with ThreadPoolExecutor(8) as callers:
        for texts, found in zip(requests, callers.map(lambda texts: score(url, texts), requests), strict=True):
            for text, scores in zip(texts, found, strict=True):
                for name, expected in alone[text].items():
                    assert scores[name] == pytest.approx(expected, abs=1e-5)
