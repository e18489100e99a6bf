"""Invariant 16, for a whole run: a service on a real socket that is late, wrong, broken, or of another version.

What may pass leaves no trace in the run's figures. What is wrong stops it at a checkpoint, from which it goes on to the
figures of an unbroken run. What fails for single responses is counted.
"""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from reward_proto import ErrorCode
from rl_client.api import ReplyError, RewardClientError
from rl_client.api.testing import FakeModel, FakeRewardService
from rl_client.errors import TooManyFailedScoresError
from rl_client.recipes.train_ppo import train_ppo
from rl_client.training.checkpoint import list_checkpoints
from rl_client.training.config import TrainConfig

STEPS = 3
BAD_REQUEST = 2
"""Which score request the service answers badly: that of the second step."""

MODEL = FakeModel("m", score=lambda text: -0.1 * len(text.split()))

Act = Callable[["Handler", bytes], None]


class Handler(BaseHTTPRequestHandler):
    """Answers as the fake service does, but for the score requests that `server.acts` names by number."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        request = httpx.Request(self.command, f"http://x{self.path}", headers=dict(self.headers), content=body)
        act = self.server.act() if self.path == "/v1/score" else None
        reply = self.server.service.transport.handle_request(request)
        content = reply.read()
        if act is None:
            self.reply(reply.status_code, content)
        else:
            act(self, content)
        if self.path == "/v1/score":
            self.server.last_content = content

    do_GET = do_POST = answer

    def reply(self, status: int, content: bytes, headers: tuple[tuple[str, str], ...] = (), length: int = 0) -> None:
        self.send_response(status)
        own = (("Content-Length", str(length or len(content))), ("X-Request-Id", self.headers["X-Request-Id"]))
        for name, value in (*headers, *own):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.service = FakeRewardService([MODEL])
        self.acts: dict[int, Act] = {}
        self.asked = 0
        self.last_content = b""
        self.closing = threading.Event()

    def act(self) -> Act | None:
        self.asked += 1
        return self.acts.get(self.asked)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client did not wait."""


def changed(change: Callable[[dict[str, Any]], object]) -> Act:
    def act(handler: Handler, content: bytes) -> None:
        body = json.loads(content)
        change(body)
        handler.reply(200, json.dumps(body).encode())

    return act


def error(status: int, code: str) -> Act:
    body = {"error": {"code": code, "message": "m", "retryable": True, "request_id": "r"}}
    return lambda handler, content: handler.reply(status, json.dumps(body).encode(), (("Retry-After", "0"),))


def cut_off(handler: Handler, content: bytes) -> None:
    handler.reply(200, content[: len(content) // 2], length=len(content))
    handler.close_connection = True


def late(handler: Handler, content: bytes) -> None:
    """The right answer, when nobody waits for it any more."""
    handler.server.closing.wait(60)
    handler.reply(200, content)


def drips(handler: Handler, content: bytes) -> None:
    """The right answer, a byte a second."""
    for byte in content:
        handler.wfile.write(bytes([byte]))
        if handler.server.closing.wait(1.0):
            return


def twice(handler: Handler, content: bytes) -> None:
    """The right answer, and once more: the next request would find it on its connection, in place of its own."""
    for _ in range(2):
        handler.reply(200, content)


def all_of(*changes: Callable[[dict[str, Any]], object]) -> Act:
    return changed(lambda body: [change(body) for change in changes])


def nan(body: dict[str, Any]) -> None:
    scores(body)[0]["segments"][0].update(score=float("nan"))


def reverse(body: dict[str, Any]) -> None:
    body["results"].reverse()


def other_version(body: dict[str, Any]) -> None:
    scores(body)[1].update(version="111111111111")


def page(status: int) -> Act:
    return lambda handler, content: handler.reply(status, b"<html><h1>Welcome</h1></html>")


def scores(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [result["scores"]["m"] for result in body["results"]]


PASSING: dict[str, Act] = {
    "late": late,
    "429": error(429, "rate_limited"),
    "500": error(500, "internal"),
    "503": error(503, "overloaded"),
    "a proxy's 502": page(502),
    "cut off": cut_off,
    "429, cut off": lambda handler, content: handler.reply(429, content[: len(content) // 2]),
    "drips in": drips,
    "answered twice": twice,
}

WRONG: dict[str, Act] = {
    "NaN": changed(nan),
    "null": changed(lambda body: scores(body)[0]["segments"][0].update(score=None)),
    "too few": changed(lambda body: body["results"].pop()),
    "too many": changed(lambda body: body["results"].append(body["results"][0])),
    "duplicated": changed(lambda body: body["results"].__setitem__(1, body["results"][0])),
    "reordered": changed(reverse),
    "another version": changed(other_version),
    "NaN, of another version": all_of(nan, other_version),
    "reordered and too few": all_of(reverse, lambda body: body["results"].pop()),
    "a page": page(200),
    "an empty body": lambda handler, content: handler.reply(200, b""),
    "cut off unnoticed": lambda handler, content: handler.reply(200, content[: len(content) // 2]),
    "another runtime": changed(lambda body: scores(body)[1].update(runtime="other-int8")),
    "an earlier reply again": lambda handler, content: handler.reply(200, handler.server.last_content),
}


@pytest.fixture(scope="session")
def family() -> str:
    """One is enough here."""
    return "t5"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.closing.set()
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture(scope="module")
def prompts_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    texts = [f"{a} {b}" for a in ("red", "blue") for b in ("one", "two", "plain , one")]
    path.write_text("".join(json.dumps({"id": f"q{i}", "prompt": text}) + "\n" for i, text in enumerate(texts)))
    return path


def config_of(output: Path, policy: Path, prompts: Path, service: dict[str, Any]) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "output": output,
            "threads": 1,
            "device": "cpu",
            "policy": policy,
            "prompts": prompts,
            "service": service,
            "rewards": [{"model": "m"}],
            "generation": {"max_new_tokens": 5, "samples_per_prompt": 2},
            "ppo": {"steps": STEPS, "prompts_per_step": 3, "minibatch_size": 6, "epochs": 1, "learning_rate": 1e-3},
            "checkpoint": {"every_steps": 100},
            "pipeline": {"send_share": 1.0},  # one request a step
            "diagnostics": {"tensorboard": False, "samples_every_steps": 0},
        }
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory, policy_dir, prompts_path) -> list[dict]:
    """The figures of a run whose service does as it should, without a network."""
    output = tmp_path_factory.mktemp("unbroken") / "run"
    service = FakeRewardService([MODEL])
    config = config_of(output, policy_dir, prompts_path, {"url": "http://reward"})
    train_ppo(config, resume=False, transport=service.transport)
    return figures(output)


@pytest.fixture
def train(policy_dir, prompts_path, tmp_path, server):
    def train(output: str, *, resume: bool = False, timeout_s: float = 30.0, **service: Any) -> list[dict]:
        service |= {"url": f"http://127.0.0.1:{server.server_port}", "timeout_s": timeout_s}
        config = config_of(tmp_path / output, policy_dir, prompts_path, service)
        train_ppo(config, resume=resume)
        return figures(config.output)

    return train


def figures(output: Path) -> list[dict]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.endswith("_s")} for line in lines]


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_leaves_no_trace(name, server, train, expected):
    server.acts = {BAD_REQUEST: PASSING[name]}
    assert train("disturbed", timeout_s=2.0 if name in ("late", "drips in") else 30.0) == expected
    # An answer too many is seen on the next request, or before it is sent.
    assert server.asked >= STEPS + (name != "answered twice")
    assert [line["failed_scores"] for line in expected] == [0] * STEPS


def test_one_trouble_after_the_other_leaves_no_trace(server, train, expected):
    troubles = [page(502), cut_off, error(429, "rate_limited"), error(500, "internal"), twice]
    server.acts = dict(enumerate(troubles, BAD_REQUEST))
    assert train("disturbed") == expected
    # One more request for each but the last: an answer too many is seen on the next request, or before it is sent.
    assert server.asked - STEPS in (len(troubles) - 1, len(troubles))


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_stops_the_run_at_a_checkpoint_and_it_goes_on_from_there(name, server, train, tmp_path, expected):
    server.acts = {BAD_REQUEST: WRONG[name]}
    with pytest.raises(ReplyError):
        train("stopped")
    assert server.asked == BAD_REQUEST
    assert [path.name for path in list_checkpoints(tmp_path / "stopped" / "checkpoints")] == ["step-00000001"]
    assert figures(tmp_path / "stopped") == expected[:1]
    assert train("stopped", resume=True) == expected


def test_responses_that_fail_alone_are_counted(server, train):
    def act(body: dict[str, Any]) -> None:
        reason = {"code": "too_long", "message": "m", "retryable": False}
        scores(body)[4].update(segments=None, sequence_score=None, error=reason)

    server.acts = {BAD_REQUEST: changed(act)}
    lines = train("counted", max_failed_share=0.2)
    assert [line["failed_scores"] for line in lines] == [0, 1, 0]


def test_a_model_that_fails_for_all_stops_the_run_at_a_checkpoint(server, train, tmp_path):
    server.acts = dict.fromkeys(range(BAD_REQUEST, 100), error(500, "model_failed"))
    with pytest.raises(TooManyFailedScoresError, match=r"6 of 6 responses got no score.*model_failed"):
        train("stopped")
    assert [path.name for path in list_checkpoints(tmp_path / "stopped" / "checkpoints")] == ["step-00000001"]


def test_a_service_that_exchanges_its_model_stops_the_run(server, train, tmp_path):
    def exchange(handler: Handler, content: bytes) -> None:
        handler.server.service.models["m"] = FakeModel("m", score=len, version="111111111111")
        handler.reply(200, content)

    server.acts = {1: exchange}
    with pytest.raises(RewardClientError) as raised:
        train("stopped")
    assert getattr(raised.value, "code", None) is ErrorCode.UNKNOWN_MODEL
    assert [path.name for path in list_checkpoints(tmp_path / "stopped" / "checkpoints")] == ["step-00000001"]
