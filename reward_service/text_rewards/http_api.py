"""One remote HTTP service: quota and retries.

The key goes into a header and nowhere else; where a service repeats it in an error, it is blacked out.
"""

import json
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar

import httpx
import stamina
from aiolimiter import AsyncLimiter
from pydantic import ValidationError

from reward_service.errors import ModelFailedError, OverloadedError, ServiceError
from reward_service.request_labels import current_request
from reward_service.text_rewards.settings import ApiSettings

WAIT_INITIAL_S = 0.5
"""Before the second try; then twice as long each time, with as much again at random."""

WAIT_MAX_S = 30.0
"""Longest wait before a try. A service that asks for a longer one is not asked again."""

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
BUSY = frozenset({429, 503, 529})
"""The service is there and asks for patience."""

MAX_MESSAGE_CHARS = 300

T = TypeVar("T")


class BadReplyError(Exception):
    """A 2xx reply is not what the protocol says; the message tells what is wrong with it."""


class _TryError(Exception):
    """One try failed. `retry` is whether, or after how many seconds, another may help; `error` is told if none does."""

    def __init__(self, error: ServiceError, retry: bool | float) -> None:
        super().__init__(error.message)
        self.error = error
        self.retry = retry


class HttpApi(Generic[T]):
    """Asks one service. Its coroutines belong to one event loop.

    Args:
        name: What errors call the service.
        settings: Where it is and how patiently it is asked.
        parse: Turns the body of a 2xx reply into an answer, or raises `BadReplyError`.
        key_header: The header that carries the key, and what stands before the key in it.
        key: The key, if one is needed.
        refuse: Turns status and body of a reply that is not to be asked again into an error, None for the usual one.
    """

    def __init__(
        self,
        name: str,
        settings: ApiSettings,
        base_url: str,
        *,
        parse: Callable[[bytes, Any], T],
        key_header: tuple[str, str],
        key: str | None,
        refuse: Callable[[int, Any], ServiceError | None],
    ) -> None:
        self._name = name
        self._parse = parse
        self._refuse = refuse
        self._key = key
        self._attempts = settings.attempts
        header, prefix = key_header
        headers = {} if key is None else {header: f"{prefix}{key}"}
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers=headers,
            timeout=httpx.Timeout(settings.timeout_s, pool=None),
            limits=httpx.Limits(max_connections=settings.concurrency),
        )
        # One at a time, evenly spaced: no window of time has more of them than the quota.
        rate = settings.requests_per_s
        self._limiter = None if rate is None else AsyncLimiter(1, 1 / rate)

    async def ask(self, path: str, body: dict[str, Any], about: Any = None) -> T:
        """The service's answer to a question.

        Args:
            path: Below the base URL.
            body: The JSON to post.
            about: Handed to `parse`.

        Raises:
            OverloadedError: The service asks for patience, also after the last try.
            ModelFailedError: It cannot be reached, refuses, or gives broken replies.
            ServiceError: What `refuse` made of its reply.
        """
        try:
            async for attempt in stamina.retry_context(
                _retry_of,
                attempts=self._attempts,
                timeout=None,
                wait_initial=WAIT_INITIAL_S,
                wait_max=WAIT_MAX_S,
                wait_jitter=WAIT_INITIAL_S,
            ):
                with attempt:
                    answer = await self._try(path, body, about)
        except _TryError as failure:
            raise failure.error from failure
        return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _try(self, path: str, body: dict[str, Any], about: Any) -> T:
        if self._limiter is not None:
            await self._limiter.acquire()
        try:
            reply = await self._client.post(path, json=body, headers=_trace_headers())
        except httpx.HTTPError as error:
            raise _TryError(ModelFailedError(f"{self._name}: no reply ({type(error).__name__})"), True) from error
        if not reply.is_success:
            raise self._refused(reply)
        try:
            return self._parse(reply.content, about)
        except BadReplyError as error:
            message = self._blacked_out(f"{self._name}: a broken reply: {error}")
            raise _TryError(ModelFailedError(message), True) from error

    def _refused(self, reply: httpx.Response) -> _TryError:
        status = reply.status_code
        payload = _json_or_none(reply.content)
        message = self._blacked_out(f"{self._name}: status {status}: {_message_in(payload)}")
        if status in RETRIED:
            wait_s = retry_after_s(reply.headers, time.time())
            error = OverloadedError(message, retry_after_s=wait_s) if status in BUSY else ModelFailedError(message)
            return _TryError(error, True if wait_s is None else wait_s <= WAIT_MAX_S and wait_s)
        own = self._refuse(status, payload)
        return _TryError(ModelFailedError(message) if own is None else own, False)

    def _blacked_out(self, text: str) -> str:
        shown = text.replace(self._key, "***") if self._key else text
        return shown[:MAX_MESSAGE_CHARS]


def _trace_headers() -> dict[str, str]:
    """Carries on the trace of the request that is worked for."""
    labels = current_request.get()
    return {"traceparent": labels.traceparent} if labels is not None and labels.traceparent else {}


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """How long a reply asks to wait, in seconds; None if it does not say.

    Args:
        headers: Of the reply; `Retry-After` holds seconds or a date.
        now_s: Seconds since 1970.
    """
    value = headers.get("retry-after", "")
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_s)
    except ValueError:
        return None


def first_fault(error: ValidationError) -> str:
    """Where a reply's body differs from its schema first, and how; without what stands there."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"


def _retry_of(error: Exception) -> bool | float:
    return error.retry if isinstance(error, _TryError) else False


def _json_or_none(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _message_in(payload: Any) -> str:
    """The message in the error shape that Google's and OpenAI's APIs share."""
    error = payload.get("error") if isinstance(payload, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else "no message"
