"""The reward cache of a real `reward-service serve`: marks, a kill -9 in the middle of writing, a disk that is full."""

import json
import random
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from reward_proto import ModelScore, ScoreReply

TIMEOUT_S = 60.0
TOLERANCE = 1e-5
MODELS = ("relevance", "factuality")


class Service:
    """A running service with a cache, and a client of it."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self.log: list[str] = process.log
        self.http = httpx.Client(base_url=process.url, timeout=TIMEOUT_S)

    def post(self, texts: list[str]) -> httpx.Response:
        items = [{"response": text, "fields": {"question": "Who?"}} for text in texts]
        reply = self.http.post("/v1/score", json={"items": items, "return_logits": True})
        assert reply.status_code == 200, reply.text
        return reply

    def score(self, texts: list[str]) -> dict[tuple[str, str], ModelScore]:
        """The scores of each text by each model."""
        results = ScoreReply.model_validate_json(self.post(texts).content).results
        return {
            (text, model): result.scores[model] for text, result in zip(texts, results, strict=True) for model in MODELS
        }

    def metric(self, line: str) -> float:
        """The value of a sample, 0 if there is none."""
        found = re.search(rf"^{re.escape(line)} (\S+)$", self.http.get("/metrics").text, re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    def kill(self) -> None:
        self.http.close()
        self._process.kill()
        assert self._process.popen.returncode == -signal.SIGKILL

    def end(self) -> None:
        self.http.close()
        assert self._process.end() == 0


@pytest.fixture
def serve(start_service: Callable[..., Any], tiny_store: Path) -> Callable[..., Service]:
    models = [{"name": name, "runtime": "onnxruntime"} for name in MODELS]
    return lambda **options: Service(start_service(store=str(tiny_store), models=models, **options))


def make_texts(count: int) -> list[str]:
    rng = random.Random(3)
    words = ["alpha", "beta", "gamma,", "delta;", "epsilon.", "Zeta", "eta", "theta!", "Iota", "😀", "käse"]
    return [f"{number} " + " ".join(rng.choices(words, k=rng.randint(1, 30))) for number in range(count)]


def told(score: ModelScore) -> str:
    """A score as a row of the cache tells it."""
    segments = [[s.start, s.end, s.score, s.label, s.logits] for s in score.segments or []]
    return json.dumps([[segments, score.sequence_score, score.truncated_tokens]])


def rows(path: Path) -> list[str]:
    """The committed scores."""
    connection = sqlite3.connect(path)
    try:
        return [json.dumps(json.loads(value)) for (value,) in connection.execute("SELECT value FROM scores")]
    finally:
        connection.close()


def damage_a_row(path: Path) -> str:
    """Change a digit of one score; returns the scores as they are served when nobody checks."""
    connection = sqlite3.connect(path)
    row, value = connection.execute("SELECT id, value FROM scores WHERE instr(value, ?) LIMIT 1", (b"0.",)).fetchone()
    place = value.index(b"0.") + 2
    wrong = value[:place] + (b"1" if value[place : place + 1] != b"1" else b"2") + value[place + 1 :]
    connection.execute("UPDATE scores SET value = ? WHERE id = ?", (wrong, row))
    connection.commit()
    connection.close()
    return json.dumps(json.loads(wrong))


def test_hits_are_marked_and_cost_nothing(serve: Callable[..., Service]) -> None:
    service = serve(cache={})
    texts = make_texts(8)
    first, second = service.post(texts), service.post(list(reversed(texts)))
    computed, found = first.json(), second.json()
    for one, other in zip(computed["results"], reversed(found["results"]), strict=True):
        for model in MODELS:
            assert (one["scores"][model].pop("cached"), other["scores"][model].pop("cached")) == (False, True)
        assert one["scores"] == other["scores"], "to the bit, logits too"
    assert computed["usage"]["padded_tokens"] > 0
    assert found["usage"] == {"input_tokens": 0, "padded_tokens": 0}
    assert "inference;dur=0.000" in second.headers["Server-Timing"]
    for model in MODELS:
        for result in ("hit", "miss"):
            assert service.metric(f'reward_cache_requests_total{{model="{model}",result="{result}"}}') == 8
    assert service.metric("reward_cache_entries") == 16
    service.end()


def test_kill_9_loses_no_committed_score_and_serves_no_wrong_one(serve: Callable[..., Service], tmp_path: Path) -> None:
    texts = make_texts(120)
    plain = serve(cache={"memory_bytes": 0})
    expected = plain.score(texts)
    assert not any(score.cached for score in plain.score(texts[:5]).values()), "switched off, nothing is kept"
    plain.end()

    path = tmp_path / "scores.db"
    cache = {"path": str(path)}
    killed = serve(cache=cache)
    # Writes go on behind the replies: killed while callers are being answered, some are committed and some are not.
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(killed.score, texts[first : first + 4]) for first in range(0, len(texts), 4)]
        asking[len(asking) // 2].result(TIMEOUT_S)
        killed.kill()
    committed = rows(path)
    assert committed, "nothing was written before the end"
    wrong = damage_a_row(path)

    later = serve(cache=cache)
    found = later.score(texts)
    assert sum(score.cached for score in found.values()) == len(committed) - 1
    assert later.metric('reward_cache_disk_events_total{event="corrupt"}') == 1
    for place, score in found.items():
        assert told(score) != wrong
        if score.cached:
            assert told(score) in committed
        assert score.sequence_score == pytest.approx(expected[place].sequence_score, abs=TOLERANCE)
        assert [(s.start, s.end, s.label) for s in score.segments or []] == [
            (s.start, s.end, s.label) for s in expected[place].segments or []
        ]
        numbers = [s.score for s in expected[place].segments or []]
        assert [s.score for s in score.segments or []] == pytest.approx(numbers, abs=TOLERANCE)
    later.end()
    assert len(rows(path)) == 240, "what was missing and what was damaged is there again"
    assert wrong not in rows(path)


def test_a_full_disk_costs_the_cache_and_nothing_else(serve: Callable[..., Service], tmp_path: Path) -> None:
    path = tmp_path / "scores.db"
    service = serve(cache={"path": str(path), "memory_bytes": 0}, max_file_bytes=64 * 1024)
    texts = make_texts(120)
    for _ in range(2):
        found = service.score(texts)
        assert all(score.error is None and score.segments for score in found.values())
    assert service.metric("reward_cache_disk_up") == 0
    assert service.metric('reward_cache_disk_events_total{event="error"}') >= 1
    assert sum("scores are not kept on disk" in line for line in service.log) == 1
    service.end()


def test_two_services_share_a_file(serve: Callable[..., Service], tmp_path: Path) -> None:
    cache = {"path": str(tmp_path / "scores.db"), "memory_bytes": 0}
    one, other = serve(cache=cache), serve(cache=cache)
    texts = make_texts(20)
    computed = {place: told(score) for place, score in one.score(texts).items()}
    while one.metric('reward_cache_disk_events_total{event="written"}') < 40:
        pass
    found = other.score(texts)
    assert all(score.cached for score in found.values())
    assert {place: told(score) for place, score in found.items()} == computed
    one.end()
    other.end()


def test_a_file_that_cannot_be_is_told_at_the_start(tmp_path: Path, tiny_store: Path) -> None:
    config = tmp_path / "service.yaml"
    settings = {"port": 0, "store": str(tiny_store), "models": [{"name": "relevance"}]}
    config.write_text(yaml.safe_dump({**settings, "cache": {"path": str(tmp_path / "nowhere" / "scores.db")}}))
    command = [str(Path(sys.executable).with_name("reward-service")), "serve", "--config", str(config)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode != 0
    assert "cache.path:" in ended.stderr
    assert "Traceback" not in ended.stderr
