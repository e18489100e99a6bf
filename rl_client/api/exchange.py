"""One request with its retries, as a generator that does no I/O, and the two drivers that run it.

The generator yields an `Attempt`, is sent the `RawReply` or thrown httpx's exception, and returns the checked answer.
So the sync and the async client share every decision; only waiting and sending are written twice.
"""

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TypeAlias, TypeVar

import httpx
from pydantic import ValidationError

from reward_proto import RETRYABLE, ErrorReply
from rl_client.api.deadline import within
from rl_client.api.errors import (
    STATUS_ERRORS,
    ApiConnectionError,
    ApiStatusError,
    ApiTimeoutError,
    ReplyError,
    RewardClientError,
)
from rl_client.api.retry import Retries

logger = logging.getLogger(__name__)

TOO_MANY_REQUESTS = 429
RETRYABLE_STATUSES = frozenset({TOO_MANY_REQUESTS, 500, 502, 503, 504})
"""Statuses worth another try when the body has no code of the contract, as that of a proxy."""
_SHOWN_CHARS = 200
_OWN_IDS = uuid.uuid4().hex[:8]
"""Begins the id of every request of this process, and so tells an answer to another of them from an id of a proxy's."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Wait `delay_s`, then send this."""

    method: str
    path: str
    request_id: str
    content: bytes | None = None
    delay_s: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawReply:
    """A whole reply of whatever status."""

    status: int
    headers: httpx.Headers
    content: bytes


T = TypeVar("T")
Exchange: TypeAlias = Generator[Attempt, RawReply, T]


def new_request_id() -> str:
    """Names a request, in all of its attempts."""
    return _OWN_IDS + uuid.uuid4().hex[len(_OWN_IDS) :]


def is_of_another_request(told: str | None, attempt: Attempt) -> bool:
    """Whether a reply says that it answers another request of this process.

    So it is where a server answers one request twice on a connection: each later request would get the answer to the
    one before. An id that is not of this process is that of a proxy, and says nothing.
    """
    return told is not None and told != attempt.request_id and told.startswith(_OWN_IDS)


def request_with_retries(attempt: Attempt, retries: Retries) -> Exchange[RawReply]:
    """Send until a 2xx reply is here, something final happens, or the retries are used up.

    Raises:
        RewardClientError: The last failure.
    """
    while True:
        failure: RewardClientError
        try:
            reply = yield attempt
        except httpx.HTTPError as error:
            failure = transport_error(error, attempt)
            failure.__cause__ = error
        else:
            if 200 <= reply.status < 300:
                return reply
            failure = status_error(reply)
        code = failure.code if isinstance(failure, ApiStatusError) else None
        delay_s = retries.delay_s(code, failure.retry_after_s) if failure.retryable else None
        if delay_s is None:
            if retries.failures > 1:
                failure.add_note(f"gave up after {retries.failures} attempts")
            raise failure
        logger.warning("%s %s failed, next try in %.1f s: %s", attempt.method, attempt.path, delay_s, failure)
        attempt = replace(attempt, delay_s=delay_s)


def transport_error(error: httpx.HTTPError, attempt: Attempt) -> RewardClientError:
    """The client's exception for one of httpx's."""
    asked = f"{attempt.method} {_address(error, attempt)} (request {attempt.request_id})"
    what = f"{asked}: {type(error).__name__}: {error}"
    if isinstance(error, httpx.TimeoutException):
        return ApiTimeoutError(what)
    if isinstance(error, httpx.DecodingError):
        return ReplyError(what)
    # What this side got wrong stays wrong however often it is sent.
    ours = isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError)
    return ApiConnectionError(what, retryable=not ours)


def _address(error: httpx.HTTPError, attempt: Attempt) -> str:
    """Where it was sent, without a password that the address may hold; the path alone where nothing was sent yet."""
    try:
        url = error.request.url
    except RuntimeError:
        return attempt.path
    return f"{url.scheme}://{url.netloc.decode()}{url.path}"


def status_error(reply: RawReply) -> ApiStatusError:
    """The exception that a reply with an error status stands for. No 4xx but 429 is retryable, whatever it says."""
    retry_after_s = parse_retry_after(reply.headers.get("retry-after"))
    request_id = reply.headers.get("x-request-id", "")
    try:
        body = ErrorReply.model_validate_json(reply.content).error
    except ValidationError:
        shown = reply.content[:_SHOWN_CHARS].decode("utf-8", errors="replace")
        return ApiStatusError(
            f"not an error of the contract: {shown!r}",
            status=reply.status,
            retryable=reply.status in RETRYABLE_STATUSES,
            request_id=request_id,
            retry_after_s=retry_after_s,
        )
    may_retry = reply.status >= 500 or reply.status == TOO_MANY_REQUESTS
    return STATUS_ERRORS[body.code](
        body.message,
        status=reply.status,
        retryable=may_retry and (body.retryable or body.code in RETRYABLE),
        request_id=body.request_id or request_id,
        details=body.details,
        retry_after_s=retry_after_s,
    )


def parse_retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header, a number or an HTTP date; None if absent or unreadable."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return None if math.isnan(seconds) else max(0.0, seconds)


def run_sync(exchange: Exchange[T], http: httpx.Client, timeout_s: float) -> T:
    """Run an exchange, each attempt within `timeout_s`."""
    resume = partial(next, exchange)
    while True:
        try:
            attempt = resume()
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        try:
            resume = partial(exchange.send, _send_sync(attempt, http, timeout_s))
        except httpx.HTTPError as error:
            resume = partial(exchange.throw, error)


async def run_async(exchange: Exchange[T], http: httpx.AsyncClient, timeout_s: float) -> T:
    """Run an exchange, each attempt within `timeout_s`."""
    resume = partial(next, exchange)
    while True:
        try:
            attempt = resume()
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        try:
            resume = partial(exchange.send, await _send_async(attempt, http, timeout_s))
        except httpx.HTTPError as error:
            resume = partial(exchange.throw, error)


def _send_sync(attempt: Attempt, http: httpx.Client, timeout_s: float) -> RawReply:
    if attempt.delay_s:
        time.sleep(attempt.delay_s)
    body = _Body(timeout_s)
    headers = {**attempt.headers, "X-Request-Id": attempt.request_id}
    with (
        within(timeout_s),
        http.stream(attempt.method, attempt.path, content=attempt.content, headers=headers) as response,
    ):
        _check_answers(response, attempt)
        for chunk in response.iter_bytes():
            body.add(chunk)
        return RawReply(response.status_code, response.headers, body.content)


async def _send_async(attempt: Attempt, http: httpx.AsyncClient, timeout_s: float) -> RawReply:
    if attempt.delay_s:
        await asyncio.sleep(attempt.delay_s)
    headers = {**attempt.headers, "X-Request-Id": attempt.request_id}
    request = http.build_request(attempt.method, attempt.path, content=attempt.content, headers=headers)
    try:
        async with asyncio.timeout(timeout_s):
            response = await http.send(request, stream=True)
            try:
                _check_answers(response, attempt)
                return RawReply(response.status_code, response.headers, await response.aread())
            finally:
                await response.aclose()
    except TimeoutError as error:
        raise httpx.ReadTimeout(_not_whole(timeout_s)) from error


def _check_answers(response: httpx.Response, attempt: Attempt) -> None:
    """Refuse a reply to another request before it is read, which closes its connection.

    Raises:
        RemoteProtocolError: It is one.
    """
    told = response.headers.get("x-request-id")
    if is_of_another_request(told, attempt):
        raise httpx.RemoteProtocolError(f"the reply is that of the request {told}: the server answered it twice")


def _not_whole(timeout_s: float) -> str:
    return f"the reply was not whole within {timeout_s} s"


class _Body:
    """Collects a reply's body and stops one that drips in, through whatever transport it comes."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._deadline_s = time.monotonic() + timeout_s
        self._chunks: list[bytes] = []

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        if time.monotonic() > self._deadline_s:
            raise httpx.ReadTimeout(_not_whole(self._timeout_s))

    @property
    def content(self) -> bytes:
        return b"".join(self._chunks)
