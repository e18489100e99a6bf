"""Bounds a whole attempt, from the connection to the last byte. httpx bounds each read, and a server may drip.

An async attempt is cancelled by asyncio. A sync one is in a system call most of the time, so each of its calls gets
what is left of the attempt.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore
import httpx

_deadline_s: ContextVar[float | None] = ContextVar("deadline_s", default=None)
"""Of the attempt that this thread makes, by `time.monotonic`."""


@contextmanager
def within(timeout_s: float) -> Iterator[None]:
    """What this thread sends and receives in here, through a bounded client, takes no longer."""
    token = _deadline_s.set(time.monotonic() + timeout_s)
    try:
        yield
    finally:
        _deadline_s.reset(token)


def bound(http: httpx.Client) -> None:
    """Have a client heed `within`, proxies included. Transports that are not httpx's own stay as they are.

    httpx has no public way to its sockets; where a later version hides them otherwise, its own time-outs remain.
    """
    for transport in (http._transport, *http._mounts.values()):
        pool: Any = getattr(transport, "_pool", None) if isinstance(transport, httpx.HTTPTransport) else None
        backend = getattr(pool, "_network_backend", None)
        if isinstance(backend, httpcore.NetworkBackend):
            pool._network_backend = _BoundBackend(backend)


def _left_s(timeout_s: float | None, kind: type[httpcore.TimeoutException]) -> float | None:
    """How long the next call may take.

    Raises:
        TimeoutException: Of this kind, if the time is up.
    """
    deadline_s = _deadline_s.get()
    if deadline_s is None:
        return timeout_s
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise kind("the reply was not whole within the time-out")
    return left_s if timeout_s is None else min(left_s, timeout_s)


class _BoundBackend(httpcore.NetworkBackend):
    """Connects as another one does."""

    def __init__(self, inner: httpcore.NetworkBackend) -> None:
        self._inner = inner

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        left_s = _left_s(timeout, httpcore.ConnectTimeout)
        return _BoundStream(self._inner.connect_tcp(host, port, left_s, local_address, socket_options))

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        left_s = _left_s(timeout, httpcore.ConnectTimeout)
        return _BoundStream(self._inner.connect_unix_socket(path, left_s, socket_options))

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class _BoundStream(httpcore.NetworkStream):
    """Reads and writes as another one does."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left_s(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _left_s(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left_s = _left_s(timeout, httpcore.ConnectTimeout)
        return _BoundStream(self._inner.start_tls(ssl_context, server_hostname, left_s))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
