"""`reward-service serve` as a process of its own on loopback: real HTTP, real ONNX models, real signals."""

import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from reward_proto import ErrorReply, ScoreReply

TOLERANCE = 1e-5
TIMEOUT_S = 60.0
QUESTION = {"question": "Who?"}


def settings(store: Path) -> dict[str, Any]:
    """Without a cache, so that the same text again is the same work again."""
    models = [{"name": name, "runtime": "onnxruntime"} for name in ("relevance", "factuality", "completeness")]
    return {"store": str(store), "models": models, "cache": {"memory_bytes": 0}}


@pytest.fixture(scope="module")
def process(start_service: Callable[..., Any], tiny_store: Path) -> Iterator[Any]:
    running = start_service(**settings(tiny_store))
    yield running
    assert running.end() == 0


@pytest.fixture(scope="module")
def http(process: Any) -> Iterator[httpx.Client]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    with httpx.Client(base_url=process.url, timeout=TIMEOUT_S, limits=limits) as client:
        yield client


def make_item(response: str) -> dict[str, Any]:
    return {"prompt": "p", "response": response, "fields": QUESTION}


def score(http: httpx.Client, responses: list[str], **more: Any) -> ScoreReply:
    reply = http.post("/v1/score", json={"items": [make_item(response) for response in responses], **more})
    assert reply.status_code == 200, reply.text
    return ScoreReply.model_validate_json(reply.content)


def numbers(reply: ScoreReply) -> list[list[float]]:
    """Every number of each result, in order."""
    return [
        [
            value
            for score in result.scores.values()
            for value in (*(s.score for s in score.segments or []), score.sequence_score or 0.0)
        ]
        for result in reply.results
    ]


def admitted(http: httpx.Client) -> float:
    """Requests whose items were tokenized for all three models."""
    counts = re.findall(r"reward_tokenize_duration_seconds_count\{.*\} (\S+)", http.get("/metrics").text)
    return min(map(float, counts), default=0.0) if len(counts) == 3 else 0.0


def make_responses(count: int) -> list[str]:
    rng = random.Random(0)
    words = ["alpha", "beta", "gamma,", "delta;", "epsilon.", "Zeta", "eta", "theta!", "Iota", "😀", "käse"]
    return [" ".join(rng.choices(words, k=rng.randint(1, 30))) for _ in range(count)]


def test_is_ready_and_says_what_it_serves(http: httpx.Client, process: Any) -> None:
    assert http.get("/readyz").status_code == 200
    assert [model["name"] for model in http.get("/v1/models").json()["models"]] == [
        "relevance",
        "factuality",
        "completeness",
    ]
    assert sum("loaded" in line and "onnxruntime-fp32" in line for line in process.log) == 3


def test_the_same_score_alone_and_among_63_others(http: httpx.Client) -> None:
    responses = make_responses(64)
    together = numbers(score(http, responses))
    assert len({tuple(row) for row in together}) > 60, "the models must tell the responses apart"
    for index in (0, 13, 40, 63):
        (alone,) = numbers(score(http, [responses[index]]))
        assert alone == pytest.approx(together[index], abs=TOLERANCE, rel=0)


def test_200_concurrent_requests_get_their_own_answers(http: httpx.Client) -> None:
    responses = make_responses(200)
    expected = [row for i in range(0, 200, 50) for row in numbers(score(http, responses[i : i + 50]))]
    with ThreadPoolExecutor(200) as pool:
        replies = list(pool.map(lambda response: score(http, [response]), responses))
    for reply, row in zip(replies, expected, strict=True):
        assert numbers(reply)[0] == pytest.approx(row, abs=TOLERANCE, rel=0)


@pytest.mark.parametrize(
    ("response", "sentences"),
    [
        ("Fine 👍🏽 day. Next one.", ["Fine 👍🏽 day.", "Next one."]),
        ("Cafe\u0301 opened. Nai\u0308ve closed.", ["Cafe\u0301 opened.", "Nai\u0308ve closed."]),
        ("First line.\r\nSecond line.", ["First line.", "Second line."]),
        ("  Two  spaces.  Here  too.  ", ["Two  spaces.", "Here  too."]),
        ("Dr. Smith met Mr. Jones at 5 p.m. today. He left.", ["Dr. Smith met Mr. Jones at 5 p.m. today.", "He left."]),
    ],
)
def test_spans_are_exact_in_code_points(http: httpx.Client, response: str, sentences: list[str]) -> None:
    (result,) = score(http, [response]).results
    segments = result.scores["factuality"].segments
    assert segments is not None
    assert [response[segment.start : segment.end] for segment in segments] == sentences
    for granularity_score in result.scores.values():
        covered = "".join(response[s.start : s.end] for s in granularity_score.segments or [])
        assert "".join(covered.split()) == "".join(response.split())


def test_empty_blank_and_one_word(http: httpx.Client) -> None:
    empty, blank, word = score(http, ["", " \r\n\t", "Yes"]).results
    for result in (empty, blank):
        for name in ("relevance", "factuality"):
            assert result.scores[name].segments == []
            assert result.scores[name].sequence_score is None
            assert result.scores[name].error is None
        assert result.scores["completeness"].segments == []
        assert isinstance(result.scores["completeness"].sequence_score, float)
    for model in word.scores.values():
        assert [(s.start, s.end) for s in model.segments or []] == [(0, 3)]


def test_a_very_long_response_is_a_typed_error_beside_a_score(http: httpx.Client) -> None:
    long, short = score(http, ["word " * 10_000, "Yes."]).results
    for model in long.scores.values():
        assert model.error is not None
        assert model.error.code == "too_long"
        assert model.segments is None
    assert all(model.error is None for model in short.scores.values())
    alone = http.post("/v1/score", json={"items": [make_item("x" * 50_000)]})
    assert alone.status_code == 422
    assert alone.json()["error"]["code"] == "too_long"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 422, "invalid_request"),
        (b'{"items": [{"response": NaN}]}', 422, "invalid_request"),
        (b'{"items": [{"response": "a"}], "timeout_s": NaN}', 422, "invalid_request"),
        (b'{"items": "a"}', 422, "invalid_request"),
        (b'{"items": [{"response": ["a"]}]}', 422, "invalid_request"),
        (b'{"items": [{"response": "a"}], "models": ["nobody"]}', 404, "unknown_model"),
        (b'{"items": [{"response": "a"}], "models": ["relevance"]}', 422, "missing_field"),
        (b" " * (9 * 1024 * 1024), 413, "payload_too_large"),
        (json.dumps({"items": [{"response": "a"}] * 257}).encode(), 413, "payload_too_large"),
    ],
)
def test_faults_have_the_one_shape(http: httpx.Client, body: bytes, status: int, code: str) -> None:
    reply = http.post("/v1/score", content=body)
    assert reply.status_code == status
    assert ErrorReply.model_validate_json(reply.content).error.code == code


def test_a_server_that_is_asked_to_end_answers_what_it_admitted(
    start_service: Callable[..., Any], tiny_store: Path
) -> None:
    running = start_service(**settings(tiny_store), drain={"grace_s": 3.0, "timeout_s": 30})
    responses = make_responses(256)
    with httpx.Client(base_url=running.url, timeout=TIMEOUT_S) as http, ThreadPoolExecutor(8) as pool:
        assert http.get("/readyz").status_code == 200
        work = [pool.submit(score, http, responses) for _ in range(6)]
        while admitted(http) < 6:
            time.sleep(0.01)
        ended = pool.submit(running.end)
        while (ready := http.get("/readyz")).status_code == 200:
            time.sleep(0.01)
        assert ready.json()["error"]["code"] == "draining"
        assert int(ready.headers["Retry-After"]) >= 1
        refused = http.post("/v1/score", json={"items": [make_item("late")]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert all(len(task.result().results) == 256 for task in work)
        assert ended.result() == 0
    assert any("draining" in line for line in running.log)


def test_a_faulty_file_is_told_without_a_trace(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("port: x\nmodels: [{name: a, runtime: b}]\n")
    command = [str(Path(sys.executable).with_name("reward-service")), "serve", "--config", str(config)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode == 2
    assert "3 fault(s)" in ended.stderr
    assert "models[0].runtime" in ended.stderr
    assert "Traceback" not in ended.stderr
