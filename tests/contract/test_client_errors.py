"""The contract as the client sees it: an exception for each error code, and golden examples to ask and read."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from reward_proto import (
    HTTP_STATUS,
    RETRY_AFTER,
    RETRYABLE,
    ErrorCode,
    ItemResult,
    ModelInfo,
    ScoreItem,
    ScoreRequest,
    SegmentReply,
)
from rl_client.api import ReplyError, RetryPolicy, RewardClient
from rl_client.api.errors import STATUS_ERRORS

ROOT = Path(__file__).parents[2]
CLIENT_DOC = ROOT / "docs" / "client-api.md"
EXAMPLES = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "proto/examples").glob("*.json"))
}
SCORES = [name for name in EXAMPLES if name.startswith("score_")]
INVALID_ITEMS = ("invalid_id_is_anothers_index", "invalid_ids_are_shared", "invalid_lone_surrogate")


class Replay:
    """Answers every request with one example, and keeps what was sent."""

    def __init__(self, example: dict[str, Any]) -> None:
        self.example = example
        self.sent: list[httpx.Request] = []

    def client(self, **settings: Any) -> RewardClient:
        no_retries = RetryPolicy(retry_for_s=0.0)
        return RewardClient("http://golden", transport=httpx.MockTransport(self._answer), retry=no_retries, **settings)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        return httpx.Response(
            self.example.get("status", 200), headers=self.example.get("headers"), json=self.example["reply"]
        )


def ask(replay: Replay) -> list[ItemResult]:
    """Send an example's request through the client."""
    wanted = ScoreRequest.model_validate(replay.example["request"])
    with replay.client() as client:
        return client.score(wanted.items, wanted.models, return_logits=wanted.return_logits)


def test_there_are_examples_of_everything() -> None:
    assert len(SCORES) >= 3
    assert {f"error_{code}" for code in ErrorCode} <= EXAMPLES.keys()


@pytest.mark.parametrize("name", SCORES)
def test_score_examples_are_asked_and_read(name: str) -> None:
    replay = Replay(EXAMPLES[name])
    results = ask(replay)
    assert [result.model_dump(mode="json") for result in results] == replay.example["reply"]["results"]
    sent = ScoreRequest.model_validate_json(replay.sent[0].content)
    wanted = ScoreRequest.model_validate(replay.example["request"])
    for index, (item, other) in enumerate(zip(sent.items, wanted.items, strict=True)):
        assert item == other.model_copy(update={"id": other.id if other.id is not None else str(index)})
    assert (sent.models, sent.return_logits) == (wanted.models, wanted.return_logits)


@pytest.mark.parametrize("name", SCORES)
def test_a_score_example_that_lost_something_is_refused(name: str) -> None:
    reply = EXAMPLES[name]["reply"]
    for index in range(len(reply["results"])):
        without = {**reply, "results": [result for n, result in enumerate(reply["results"]) if n != index]}
        with pytest.raises(ReplyError):
            ask(Replay({**EXAMPLES[name], "reply": without}))
        if len(reply["results"][index]["scores"]) < 2:
            continue
        for model in reply["results"][index]["scores"]:
            damaged = json.loads(json.dumps(reply))
            del damaged["results"][index]["scores"][model]
            with pytest.raises(ReplyError):
                ask(Replay({**EXAMPLES[name], "reply": damaged, "request": _naming_models(EXAMPLES[name])}))


def _naming_models(example: dict[str, Any]) -> dict[str, Any]:
    """The request, with every model named that the reply has."""
    return {**example["request"], "models": list(example["reply"]["results"][0]["scores"])}


def test_the_models_example() -> None:
    replay = Replay(EXAMPLES["models"])
    with replay.client() as client:
        models = client.models()
        pins = client.pin()
    assert models == [ModelInfo.model_validate(model) for model in replay.example["reply"]["models"]]
    assert pins == {model.name: (model.version, model.runtime) for model in models}


def test_the_segment_example() -> None:
    replay = Replay(EXAMPLES["segment"])
    with replay.client() as client:
        reply = client.segment(**replay.example["request"])
    assert json.loads(replay.sent[0].content) == replay.example["request"]
    assert reply == SegmentReply.model_validate(replay.example["reply"])


@pytest.mark.parametrize("code", ErrorCode)
def test_each_error_example_raises_its_own_exception(code: ErrorCode) -> None:
    example = EXAMPLES[f"error_{code}"]
    body = example["reply"]["error"]
    with Replay(example).client() as client, pytest.raises(STATUS_ERRORS[code]) as raised:
        client.score([ScoreItem(response="x")])
    error = raised.value
    assert type(error) is STATUS_ERRORS[code]
    assert (error.code, error.status, error.message) == (code, HTTP_STATUS[code], body["message"])
    assert (error.request_id, error.details) == (body["request_id"], body["details"])
    assert error.retryable == body["retryable"] == (code in RETRYABLE)
    assert (error.retry_after_s is not None) == (code in RETRY_AFTER)


@pytest.mark.parametrize("name", INVALID_ITEMS)
def test_items_that_no_service_takes_are_refused_before_they_are_sent(name: str) -> None:
    items = [ScoreItem.model_validate(item) for item in json.loads(EXAMPLES[name]["body"])["items"]]
    replay = Replay(EXAMPLES["models"])
    with replay.client() as client, pytest.raises(ValueError, match=r"id|sent"):
        client.score(items)
    assert replay.sent == []


@pytest.mark.parametrize("code", ErrorCode)
def test_each_code_has_a_line_in_the_clients_doc(code: ErrorCode) -> None:
    exception = STATUS_ERRORS[code].__name__
    retried = "yes" if code in RETRYABLE else "no"
    rows = [
        line for line in CLIENT_DOC.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{exception}` ")
    ]
    assert len(rows) == 1, f"{CLIENT_DOC.name} must have one row for {exception}"
    cells = [cell.strip() for cell in rows[0].strip("|").split("|")]
    assert cells[1:4] == [f"`{code}`", str(HTTP_STATUS[code]), retried]
