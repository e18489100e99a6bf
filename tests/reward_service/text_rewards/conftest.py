"""Remote services on loopback: a real uvicorn that speaks a protocol as a test tells it to."""

import asyncio
import shutil
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from transformers import BertConfig, BertForSequenceClassification
from typer.testing import CliRunner

from reward_service.cli import app

TIMEOUT_S = 20.0

Answer = Callable[[dict[str, Any]], Response | Awaitable[Response]]


@dataclass
class Asked:
    """One request that came."""

    path: str
    query: str
    headers: dict[str, str]
    body: dict[str, Any]


class LocalServer:
    """Gives the scripted replies one after another, then whatever `answer` makes of each request."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.script: list[Response] = []
        self.asked: list[Asked] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        served = Starlette(routes=[Route("/{path:path}", self._serve, methods=["POST"])])
        config = uvicorn.Config(served, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],), daemon=True)
        self._thread.start()

    async def _serve(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(Asked(request.url.path, request.url.query, dict(request.headers), body))
        if self.script:
            return self.script.pop(0)
        answer = self.answer(body)
        return answer if isinstance(answer, Response) else await answer

    def stop(self) -> None:
        """Close the port and every connection."""
        self._server.should_exit = True
        self._thread.join(TIMEOUT_S)
        self._listener.close()


@pytest.fixture(scope="session", name="LocalServer")
def _local_server() -> type[LocalServer]:
    """For fixtures that live longer than a test."""
    return LocalServer


@pytest.fixture
def make_server() -> Iterator[Callable[[Answer], LocalServer]]:
    """Starts servers that end with the test."""
    made: list[LocalServer] = []

    def make(answer: Answer) -> LocalServer:
        made.append(LocalServer(answer))
        return made[-1]

    yield make
    for server in made:
        server.stop()


def toxicity_of(text: str) -> float:
    """What the local Perspective API says: a quarter for each `bad`, four at most."""
    return min(1.0, text.count("bad") / 4)


def analyze(body: dict[str, Any]) -> Response:
    """`comments:analyze` as it is documented."""
    text = body["comment"]["text"]
    if not text:
        return google_error(400, "INVALID_ARGUMENT", "Comment must be non-empty.", "COMMENT_EMPTY")
    if "nihongo" in text:
        kind = "LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE"
        return google_error(400, "INVALID_ARGUMENT", "Attribute TOXICITY does not support request languages: ja", kind)
    summary = {"value": toxicity_of(text), "type": "PROBABILITY"}
    spans = [{"begin": 0, "end": len(text), "score": summary}]
    scores = {name: {"spanScores": spans, "summaryScore": summary} for name in body["requestedAttributes"]}
    return JSONResponse({"attributeScores": scores, "languages": body["languages"], "detectedLanguages": ["en"]})


def google_error(code: int, status: str, message: str, kind: str | None = None, **headers: str) -> Response:
    """The error shape of Google's APIs."""
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    if kind is not None:
        url = "type.googleapis.com/google.commentanalyzer.v1alpha1.AnalyzeCommentError"
        error["details"] = [{"@type": url, "errorType": kind}]
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse({"error": error}, status_code=code, headers=names)


def busy(retry_after: str | None = None) -> Response:
    """429 as Google gives it."""
    more = {} if retry_after is None else {"retry_after": retry_after}
    return google_error(429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Analysis requests'", **more)


def completion(content: str | None, finish_reason: str = "stop", refusal: str | None = None) -> Response:
    """A chat completion as OpenAI's API gives it."""
    message = {"role": "assistant", "content": content, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}
    return JSONResponse({"id": "c1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})


@pytest.fixture(scope="session", name="analyze")
def _analyze() -> Answer:
    return analyze


@pytest.fixture(name="google_error")
def _google_error() -> Callable[..., Response]:
    return google_error


@pytest.fixture(name="busy")
def _busy() -> Callable[..., Response]:
    return busy


@pytest.fixture(scope="session", name="completion")
def _completion() -> Callable[..., Response]:
    return completion


@pytest.fixture
def run() -> Iterator[Callable[[Awaitable[Any]], Any]]:
    """Runs coroutines, all on one loop."""
    with asyncio.Runner() as runner:

        async def wait_for(work: Awaitable[Any]) -> Any:
            async with asyncio.timeout(TIMEOUT_S):
                return await work

        yield lambda work: runner.run(wait_for(work))


@pytest.fixture(scope="session")
def toxicity_store(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny store with a seeded classifier of whole texts, published to be served by prefix differences."""
    root = tmp_path_factory.mktemp("toxicity")
    store, files = root / "store", root / "files"
    shutil.copytree(tiny_store, store)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=260,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
        initializer_range=0.3,  # Large, so that scores differ visibly from one text to the next.
        id2label={0: "non-toxic", 1: "toxic"},
        label2id={"non-toxic": 0, "toxic": 1},
    )
    BertForSequenceClassification(config).eval().save_pretrained(files)
    tokenizer = next((tiny_store / "relevance").glob("*/tokenizer.json"))
    shutil.copy(tokenizer, files)
    options = {
        "name": "own-toxicity",
        "kind": "sequence_classification",
        "granularity": "sentence",
        "template": "text:",
        "ok-label": "non-toxic",
        "scoring": "prefix_difference",
        "store": str(store),
    }
    given = [part for name, value in options.items() for part in (f"--{name}", value)]
    published = CliRunner().invoke(app, ["models", "publish", str(files), *given])
    assert published.exit_code == 0, published.output
    return store
