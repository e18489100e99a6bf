"""`reward-service serve` on a CUDA device as a process of its own: real HTTP, many callers at once, real signals."""

import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import yaml

from reward_proto import ScoreReply

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

DEVICE = "cuda"
TIMEOUT_S = 120.0
TOLERANCE = 1e-4
MODELS = ("relevance", "factuality", "completeness")
TEXTS = [
    " ".join("".join(letter * (1 + i % 5) for letter in word) for word in ("ab", "cde", "f")) + f". {i}; on, and on."
    for i in range(48)
]


class Service:
    """A running service; `url` is where it listens."""

    def __init__(self, folder: Path, store: Path, **placed: Any) -> None:
        models = [{"name": name, "runtime": "torch", "precision": "fp32", **placed} for name in MODELS]
        settings = {"port": 0, "store": str(store), "models": models, "cache": {"memory_bytes": 0}}
        config = folder / "service.yaml"
        config.write_text(yaml.safe_dump(settings))
        command = [str(Path(sys.executable).with_name("reward-service")), "serve", "--config", str(config)]
        self.popen = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.log: list[str] = []
        self._listening = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        assert self._listening.wait(TIMEOUT_S), "".join(self.log)
        found = re.search(r"listening on (http://\S+)", "".join(self.log))
        assert found, "".join(self.log)
        self.url = found.group(1)

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.log.append(line)
            if "listening on" in line:
                self._listening.set()
        self._listening.set()

    def score(self, texts: list[str]) -> list[dict[str, list[float]]]:
        """By text and model the segments' scores."""
        items = [{"prompt": "p", "response": text, "fields": {"question": "Who?"}} for text in texts]
        reply = httpx.post(f"{self.url}/v1/score", json={"items": items}, timeout=TIMEOUT_S)
        assert reply.status_code == 200, reply.text
        read = ScoreReply.model_validate(reply.json())
        return [
            {name: [segment.score for segment in score.segments or []] for name, score in result.scores.items()}
            for result in read.results
        ]

    def end(self) -> int:
        """SIGTERM; returns the exit status."""
        self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(TIMEOUT_S)
        finally:
            self.popen.kill()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, tiny_store: Path) -> list[dict[str, list[float]]]:
    """Scores on the CPU."""
    service = Service(tmp_path_factory.mktemp("cpu"), tiny_store, device="cpu")
    try:
        return service.score(TEXTS)
    finally:
        service.end()


@pytest.fixture(
    scope="module", params=[{"device": DEVICE}, {"devices": [DEVICE], "replicas": 2}], ids=["one", "two_replicas"]
)
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_store: Path
) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("cuda"), tiny_store, **request.param)
    yield running
    assert running.end() == 0, "".join(running.log)


def test_one_request_is_scored_as_on_the_cpu(service: Service, expected: list[dict[str, list[float]]]) -> None:
    found = service.score(TEXTS)
    for text, ours, wanted in zip(TEXTS, found, expected, strict=True):
        assert ours.keys() == set(MODELS)
        for name in MODELS:
            assert ours[name] == pytest.approx(wanted[name], rel=TOLERANCE, abs=TOLERANCE), (text, name)


def test_so_is_each_of_many_callers_at_once(service: Service, expected: list[dict[str, list[float]]]) -> None:
    order = random.Random(0).choices(range(len(TEXTS)), k=300)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: service.score([TEXTS[number]])[0], order))
    for number, ours in zip(order, found, strict=True):
        for name in MODELS:
            assert ours[name] == pytest.approx(expected[number][name], rel=TOLERANCE, abs=TOLERANCE)


def test_it_says_where_it_computes(service: Service) -> None:
    models = httpx.get(f"{service.url}/v1/models", timeout=TIMEOUT_S).json()["models"]
    assert {model["runtime"] for model in models} == {"torch-fp32"}
    assert httpx.get(f"{service.url}/readyz", timeout=TIMEOUT_S).status_code == 200
