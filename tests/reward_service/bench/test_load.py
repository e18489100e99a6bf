"""The sender against scripted replies; cli/test_benching.py has it against a real service."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from reward_proto.score import ScoreItem
from reward_service.bench.load import Answer, Run, check_service, send_load
from reward_service.bench.plan import Plan
from reward_service.errors import ConfigError

ITEMS = [ScoreItem(response=f"Text {letter}.", id=letter) for letter in "abc"]


def model_score(**more: Any) -> dict[str, Any]:
    named = {"model": "m", "version": "3fa94c01d2be", "runtime": "fake-fp32", "granularity": "sequence"}
    return {**named, "segments": [], **more}


def reply_to(request: httpx.Request, *scores: dict[str, Any]) -> httpx.Response:
    items = json.loads(request.content)["items"]
    results = [{"id": str(n), "scores": {"m": scores[n % len(scores)]}} for n in range(len(items))]
    usage = {"input_tokens": 10 * len(items), "padded_tokens": 12 * len(items)}
    return httpx.Response(200, json={"results": results, "usage": usage, "request_id": "r"})


def error(code: str, status: int, **headers: str) -> httpx.Response:
    body = {"error": {"code": code, "message": "m", "retryable": True, "request_id": "r", "details": {}}}
    return httpx.Response(status, json=body, headers=headers)


def send(handler: Callable[[httpx.Request], Any], plan: Plan, run: Run | None = None) -> Run:
    run = run or Run()
    told: list[Answer] = []

    def connect() -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(handler), base_url="http://service")

    asyncio.run(send_load(connect, ITEMS, plan, run, told.append))
    assert told == run.answers
    return run


def test_items_go_round_and_each_client_names_its_job() -> None:
    seen: list[tuple[str | None, list[str], Any]] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        assert body["timeout_s"] == 7.0
        assert all("id" not in item for item in body["items"])
        texts = [item["response"] for item in body["items"]]
        seen.append((request.headers.get("X-Client-Job"), texts, body.get("models")))
        await asyncio.sleep(0)
        return reply_to(request, model_score())

    run = send(handler, Plan({"x": 1, "": 1}, items=2, models=("m",), requests=4, timeout_s=7.0))
    sent = [text for _, texts, _ in seen for text in texts]
    assert sent == [f"Text {letter}." for letter in "abcabcab"]
    assert {job for job, _, _ in seen} == {"x", None}
    assert all(models == ["m"] for _, _, models in seen)
    assert [answer.items for answer in run.answers] == [2] * 4
    assert {answer.job for answer in run.answers} == {"x", ""}


def test_new_texts_are_new() -> None:
    texts: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        texts.extend(item["response"] for item in json.loads(request.content)["items"])
        return reply_to(request, model_score())

    send(handler, Plan({"": 1}, items=3, requests=3, is_unique=True))
    assert len(set(texts)) == 9
    assert texts[0] == "Text a. 0"


def test_what_failed_is_counted_by_its_code() -> None:
    missing = {"code": "too_long", "message": "m", "retryable": False}
    replies = iter(
        [
            lambda request: reply_to(request, model_score(cached=True), model_score(segments=None, error=missing)),
            lambda request: error("overloaded", 503, **{"Retry-After": "0"}),
            lambda request: httpx.Response(502, text="bad gateway"),
            lambda request: httpx.Response(200, json={"results": []}),
        ]
    )
    run = send(lambda request: next(replies)(request), Plan({"": 1}, items=2, requests=4))
    assert [answer.code for answer in run.answers] == [None, "overloaded", "http_502", "bad_reply"]
    first = run.answers[0]
    assert (first.items, first.scores, first.cached, dict(first.failed)) == (1, 1, 1, {"too_long": 1})
    assert (first.input_tokens, first.padded_tokens) == (20, 24)


def test_a_connection_that_fails_is_an_answer_too() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    assert [answer.code for answer in send(handler, Plan({"": 1}, items=1, requests=1)).answers] == ["ConnectError"]


def test_a_refused_client_waits_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("reward_service.bench.load.asyncio.sleep", sleep)
    replies = iter([{"Retry-After": "3"}, {"Retry-After": "9999"}, {}])
    send(lambda request: error("rate_limited", 429, **next(replies)), Plan({"": 1}, items=1, requests=3))
    assert pauses == [3.0, 30.0]


def test_a_stop_ends_it_with_what_there_is() -> None:
    run = Run()

    async def handler(request: httpx.Request) -> httpx.Response:
        if len(run.answers) == 2:
            run.stopped.set()
            await asyncio.Event().wait()
        return reply_to(request, model_score())

    send(handler, Plan({"": 1}, items=1), run)
    assert len(run.answers) == 2
    assert run.elapsed_s > 0


def test_a_duration_ends_it() -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    run = send(handler, Plan({"": 2}, items=1, duration_s=0.05))
    assert run.answers == []
    assert run.elapsed_s >= 0.05


def test_a_fault_of_the_program_is_raised() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        send(handler, Plan({"": 3}, items=1, duration_s=20))


def check(handler: Callable[[httpx.Request], httpx.Response], *models: str) -> list[str]:
    async def work() -> list[str]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler), base_url="http://service") as http:
            return await check_service(http, models or None)

    return asyncio.run(work())


def test_a_service_that_is_none_is_told_before_the_load() -> None:
    with pytest.raises(ConfigError, match="gives no list of models"):
        check(lambda request: httpx.Response(200, json={"hello": 1}))
    with pytest.raises(ConfigError, match="gives no list of models"):
        check(lambda request: error("unauthenticated", 401))
    with pytest.raises(ConfigError, match="z is not served"):
        check(lambda request: httpx.Response(200, json={"models": []}), "z")
