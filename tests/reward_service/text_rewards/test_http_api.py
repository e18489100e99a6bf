import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from reward_service.errors import ModelFailedError, OverloadedError, ServiceError, TooLongError
from reward_service.request_labels import RequestLabels, current_request
from reward_service.text_rewards import http_api
from reward_service.text_rewards.http_api import BadReplyError, HttpApi, retry_after_s
from reward_service.text_rewards.settings import ApiSettings

KEY = "k-very-secret"
Run = Callable[[Awaitable[Any]], Any]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_api, "WAIT_INITIAL_S", 0.001)


def parse(content: bytes, about: Any) -> Any:
    payload = json.loads(content)
    if "answer" not in payload:
        raise BadReplyError(f"no answer about {about}")
    return payload["answer"]


def refuse(status: int, payload: Any) -> ServiceError | None:
    return TooLongError("over") if status == 413 else None


@pytest.fixture
def make_api(make_server: Any, run: Run) -> Iterator[Callable[..., tuple[HttpApi[Any], Any]]]:
    made: list[HttpApi[Any]] = []

    def make(answer: Any = None, **settings: Any) -> tuple[HttpApi[Any], Any]:
        server = make_server(answer or (lambda body: JSONResponse({"answer": body["n"] * 10})))
        given = ApiSettings.model_validate({"name": "x", "attempts": 3, "timeout_s": 10, **settings})
        api: HttpApi[Any] = HttpApi(
            "the service",
            given,
            server.url,
            parse=parse,
            key_header=("X-Key", "Key "),
            key=KEY,
            refuse=refuse,
        )
        made.append(api)
        return api, server

    yield make
    for api in made:
        run(api.close())


def test_asks_and_answers(make_api: Any, run: Run) -> None:
    api, server = make_api()
    assert [run(api.ask(path, {"n": n})) for path, n in (("/a", 1), ("/b", 2), ("/a", 1))] == [10, 20, 10]
    assert [(asked.path, asked.body) for asked in server.asked] == [
        ("/a", {"n": 1}),
        ("/b", {"n": 2}),
        ("/a", {"n": 1}),
    ]


def test_the_key_is_in_its_header_and_nowhere_else(make_api: Any, run: Run) -> None:
    api, server = make_api()
    run(api.ask("/a", {"n": 1}))
    (asked,) = server.asked
    assert asked.headers["x-key"] == f"Key {KEY}"
    del asked.headers["x-key"]
    assert KEY not in f"{asked.path} {asked.query} {asked.headers} {asked.body}"


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(make_api: Any, run: Run, status: int) -> None:
    api, server = make_api()
    server.script = [Response(status_code=status), Response(status_code=status)]
    assert run(api.ask("/a", {"n": 1})) == 10
    assert len(server.asked) == 3


@pytest.mark.parametrize(("status", "error"), [(429, OverloadedError), (503, OverloadedError), (500, ModelFailedError)])
def test_tries_end(make_api: Any, run: Run, status: int, error: type[ServiceError]) -> None:
    api, server = make_api()
    server.script = [JSONResponse({"error": {"message": f"no {KEY} now"}}, status_code=status)] * 3
    with pytest.raises(error, match=f"status {status}: no \\*\\*\\* now") as caught:
        run(api.ask("/a", {"n": 1}))
    assert len(server.asked) == 3
    assert KEY not in repr(caught.value.__cause__)
    assert run(api.ask("/a", {"n": 1})) == 10, "an error is not remembered"


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404])
def test_what_will_not_pass_is_not_tried_again(make_api: Any, run: Run, status: int) -> None:
    api, server = make_api()
    server.script = [Response(status_code=status, headers={"Location": "/elsewhere"})]
    with pytest.raises(ModelFailedError, match=f"status {status}: no message"):
        run(api.ask("/a", {"n": 1}))
    assert len(server.asked) == 1


def test_a_refusal_may_have_an_error_of_its_own(make_api: Any, run: Run) -> None:
    api, server = make_api()
    server.script = [Response(status_code=413)]
    with pytest.raises(TooLongError, match="over"):
        run(api.ask("/a", {"n": 1}))


def test_retry_after_is_followed(make_api: Any, run: Run) -> None:
    api, server = make_api()
    server.script = [Response(status_code=429, headers={"Retry-After": "1"})]
    begin_s = time.monotonic()
    assert run(api.ask("/a", {"n": 1})) == 10
    assert time.monotonic() - begin_s >= 1.0
    assert len(server.asked) == 2


def test_too_long_a_wait_is_left_to_the_caller(make_api: Any, run: Run) -> None:
    api, server = make_api()
    server.script = [Response(status_code=429, headers={"Retry-After": "3600"})]
    with pytest.raises(OverloadedError) as caught:
        run(api.ask("/a", {"n": 1}))
    assert caught.value.retry_after_s == 3600
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),  # 100 s after the epoch, and now is 10 s after it.
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": value}, 10.0) == seconds
    assert retry_after_s({}, 10.0) is None


def test_a_broken_reply_is_tried_again_and_then_an_error(make_api: Any, run: Run) -> None:
    api, server = make_api()
    server.script = [JSONResponse({"what": KEY})]
    assert run(api.ask("/a", {"n": 1}, "x")) == 10
    server.script = [JSONResponse({})] * 3
    with pytest.raises(ModelFailedError, match="a broken reply: no answer about x"):
        run(api.ask("/a", {"n": 2}, "x"))
    assert len(server.asked) == 5


def test_silence_and_absence_are_errors_after_the_last_try(make_api: Any, run: Run) -> None:
    async def answer(body: dict[str, Any]) -> Response:
        await asyncio.sleep(5)
        return Response()

    api, server = make_api(answer, timeout_s=0.1, attempts=2)
    with pytest.raises(ModelFailedError, match=r"no reply \(ReadTimeout\)"):
        run(api.ask("/a", {"n": 1}))
    assert len(server.asked) == 2
    server.stop()
    with pytest.raises(ModelFailedError, match=r"no reply \(ConnectError\)"):
        run(api.ask("/a", {"n": 2}))


def test_requests_keep_to_their_quota_tries_included(make_api: Any, run: Run) -> None:
    api, server = make_api(requests_per_s=20)
    server.script = [Response(status_code=500)]

    async def together() -> Any:
        return await asyncio.gather(*(api.ask("/a", {"n": n}) for n in range(4)))

    begin_s = time.monotonic()
    run(together())
    assert len(server.asked) == 5
    # Five requests at 20 a second: the last may leave no sooner than 4/20 s after the first.
    assert time.monotonic() - begin_s >= 0.19


def test_no_log_tells_the_key(make_api: Any, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    api, server = make_api()
    server.script = [JSONResponse({"error": {"message": KEY}}, status_code=500)]
    run(api.ask("/a", {"n": 1}))
    told = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "500" in told
    assert KEY not in told


def test_the_trace_of_the_request_is_carried_on(make_api: Any, run: Run) -> None:
    api, server = make_api()
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    async def ask(n: int, labels: RequestLabels | None) -> None:
        current_request.set(labels)
        await api.ask("/a", {"n": n})

    run(ask(1, RequestLabels("r", traceparent=traceparent)))
    run(ask(2, RequestLabels("r")))
    run(ask(3, None))
    assert [asked.headers.get("traceparent") for asked in server.asked] == [traceparent, None, None]
