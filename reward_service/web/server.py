"""The HTTP server and its orderly end."""

import asyncio
import logging
import resource
import signal
import socket
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from reward_service.core.scorer import Scorer
from reward_service.web.arrival import PromptProtocol

logger = logging.getLogger(__name__)

Reload = Callable[[], Awaitable[None]]

KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections, so that a request does not meet a connection that is being closed."""

BACKLOG = 2048
MAX_OPEN_FILES = 65_536
CLOSE_TIMEOUT_S = 5
"""How long replies may still be written, and workers finish, after draining."""


class DrainingServer(uvicorn.Server):
    """uvicorn, except that SIGTERM and SIGINT first drain: the port stays open, new requests get 503.

    A second signal ends it at once.
    """

    def __init__(
        self, config: uvicorn.Config, scorer: Scorer, *, grace_s: float, timeout_s: float, reload: Reload | None = None
    ) -> None:
        super().__init__(config)
        self._reload = reload
        self._reloads: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self._scorer = scorer
        self._grace_s = grace_s
        self._timeout_s = timeout_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drain: asyncio.Task[None] | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal."""
        self._loop = asyncio.get_running_loop()
        if self._reload is not None:
            self._loop.add_signal_handler(signal.SIGHUP, self._start_reload)
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; uvicorn would close the port and kill itself with the same signal at the end."""
        if self._scorer.draining or self._loop is None:
            self.should_exit = self.force_exit = True
            return
        logger.info("%s: draining, %d requests at work", signal.Signals(sig).name, self._scorer.active_requests)
        self._scorer.start_draining()
        self._loop.call_soon_threadsafe(self._start_drain)

    def _start_reload(self) -> None:
        if self._reload is None or self._scorer.draining:
            return
        task = asyncio.ensure_future(self._reload_next(self._reload))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload_next(self, reload: Reload) -> None:
        try:
            async with self._reloading:  # The last of several signals reads the file last.
                await reload()
        except Exception:
            logger.exception("the settings could not be read again; the service goes on")

    def _start_drain(self) -> None:
        self._drain = asyncio.ensure_future(self._drain_then_exit())

    async def _drain_then_exit(self) -> None:
        _, drained = await asyncio.gather(asyncio.sleep(self._grace_s), self._scorer.drained(self._timeout_s))
        if not drained:
            logger.warning("dropping %d requests after %s s", self._scorer.active_requests, self._timeout_s)
        self.should_exit = True


def run(
    app: FastAPI,
    scorer: Scorer,
    host: str,
    port: int,
    protocol: type[PromptProtocol] = PromptProtocol,
    *,
    grace_s: float,
    timeout_s: float,
    reload: Reload | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and close the scorer.

    Args:
        app: The application.
        scorer: What it serves; closed at the end.
        host: Address to listen on.
        port: Port, 0 for a free one.
        protocol: Reads requests from connections.
        grace_s: Least time that the port stays open after the signal.
        timeout_s: Longest time that admitted requests are waited for.
        reload: Is called at each SIGHUP; None leaves the signal alone.

    Raises:
        OSError: The address cannot be bound.
    """
    try:
        with _bound(host, port) as listener:
            _allow_open_files()
            config = uvicorn.Config(
                app,
                http=protocol,
                ws="none",  # It would take connections over, out of reach of the protocol's bounds.
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # Nothing asks for the caller's address.
                lifespan="off",
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=CLOSE_TIMEOUT_S,
            )
            server = DrainingServer(config, scorer, grace_s=grace_s, timeout_s=timeout_s, reload=reload)
            logging.getLogger("uvicorn").setLevel(logging.WARNING)  # It would tell again what is told here.
            bound_host, bound_port = listener.getsockname()[:2]
            shown = f"[{bound_host}]" if ":" in bound_host else bound_host
            logger.info("listening on http://%s:%d", shown, bound_port)
            server.run(sockets=[listener])
    finally:
        scorer.close(CLOSE_TIMEOUT_S)
    logger.info("stopped")


def _allow_open_files() -> None:
    """Take more connections than the thousand or so that a process begins with, where the system grants it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _bound(host: str, port: int) -> socket.socket:
    """A listening socket: connections that come before the loop runs wait instead of being refused."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    # asyncio switches Nagle's algorithm off only for sockets that name their protocol, and a reply is two writes: the
    # second one would wait for the caller's delayed acknowledgement, 40 ms on Linux.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
