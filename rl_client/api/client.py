"""The reward service's client, sync and async. Both run the same exchanges (see `exchange`) and differ in I/O alone."""

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import httpx

from reward_proto import Granularity, ItemResult, ModelInfo, ScoreItem, SegmentReply
from rl_client.api import endpoints
from rl_client.api.deadline import bound
from rl_client.api.exchange import Exchange, T, run_async, run_sync
from rl_client.api.reply_check import Pin
from rl_client.api.retry import Retries, RetryPolicy
from rl_client.api.scoring import (
    ScoreCall,
    encode_items,
    join_results,
    resolve_models,
    score_exchange,
    split_items,
)

DEFAULT_TIMEOUT_S = 30.0
DEFAULT_MAX_ITEMS = 128
DEFAULT_MAX_BYTES = 4 * 1024 * 1024
CONNECT_TIMEOUT_S = 5.0
DEADLINE_SHARE = 0.9
"""The service is told this share of the time-out as its deadline, so that its answer has time to travel."""
KEPT_LATENCIES = 10_000
MAX_RUN_CHARS = 256
NO_RETRIES = RetryPolicy(retry_for_s=0.0)


class _Client(ABC):
    """What both clients hold, and the exchanges they run.

    Args:
        base_url: Where the service listens, such as `http://127.0.0.1:8000`.
        api_key: Sent as `Authorization: Bearer`, where the service asks for keys.
        client_job: Names the training job, for the service's fairness, quotas and metrics.
        client_run: Names the job's run, for the service's ledger: at most 256 printable characters.
        timeout_s: Bound of one attempt, from sending to the whole reply; the service is told 0.9 of it as its deadline.
        retry: When to ask again; see `RetryPolicy`.
        max_items_per_request: Larger batches are split; at most the service's `max_items`.
        max_request_bytes: Batches are split below this too; at most the service's `max_body_bytes`.
        max_concurrency: Requests of one `score` call in flight together. 1 sends them one after the other.
        pins: For each model name its (version, runtime): scores from another one are a `ReplyError`. See `pin`.
        transport: An httpx transport in place of the network, as that of `testing.FakeRewardService`.
        rng: Source of the jitter; seeded by the system when None, so that jobs do not retry in step.

    Raises:
        ValueError: If an argument is out of range or `base_url` is no http(s) address.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        client_job: str | None = None,
        client_run: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy = RetryPolicy(),
        max_items_per_request: int = DEFAULT_MAX_ITEMS,
        max_request_bytes: int = DEFAULT_MAX_BYTES,
        max_concurrency: int = 1,
        pins: Mapping[str, tuple[str, str | None]] | None = None,
        transport: httpx.BaseTransport | httpx.AsyncBaseTransport | None = None,
        rng: random.Random | None = None,
    ) -> None:
        url = httpx.URL(base_url)
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"base_url must be an http(s) address, not {base_url!r}")
        if not timeout_s > 0:
            raise ValueError(f"timeout_s must be above 0, not {timeout_s}")
        if min(max_items_per_request, max_request_bytes, max_concurrency) < 1:
            raise ValueError("max_items_per_request, max_request_bytes and max_concurrency must be at least 1")
        self.timeout_s = timeout_s
        self.retry = retry
        self.max_items_per_request = max_items_per_request
        self.max_request_bytes = max_request_bytes
        self.max_concurrency = max_concurrency
        self.pins = {name: Pin(*pin) for name, pin in (pins or {}).items()}
        self._rng = rng or random.Random()
        self._latencies_s: deque[float] = deque(maxlen=KEPT_LATENCIES)
        headers: dict[str, str | bytes] = {"Content-Type": "application/json", "Accept": "application/json"}
        if api_key is not None:
            headers["Authorization"] = f"Bearer {api_key}"
        if client_job is not None:
            headers["X-Client-Job"] = client_job
        if client_run is not None:
            if not (0 < len(client_run) <= MAX_RUN_CHARS and client_run.isprintable()):
                raise ValueError(f"client_run must have 1 to {MAX_RUN_CHARS} printable characters, not {client_run!r}")
            headers["X-Client-Run"] = client_run.encode()  # Names of runs are names of folders: any letters.
        self._http_options: dict[str, Any] = {
            "base_url": url,
            "headers": headers,
            "timeout": httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=max_concurrency),
            "transport": transport,
        }
        self._open()

    @abstractmethod
    def _open(self) -> None:
        """Make the httpx client from `_http_options`."""

    def take_latencies_s(self) -> list[float]:
        """Seconds that each score request since the last call took; at most the last 10,000.

        From the first sending to the checked answer, retries and the waits between them included.
        """
        taken = []
        while self._latencies_s:
            taken.append(self._latencies_s.popleft())
        return taken

    def _retries(self, policy: RetryPolicy | None = None) -> Retries:
        return Retries(policy or self.retry, self._rng, time.monotonic)

    def _score_exchanges(
        self, items: Sequence[ScoreItem], models: Sequence[str] | None, return_logits: bool, step: int | None
    ) -> list[Exchange[list[ItemResult]]]:
        references, pins = resolve_models(models, self.pins)
        call = ScoreCall(
            references=references,
            pins=pins,
            deadline_s=self.timeout_s * DEADLINE_SHARE,
            return_logits=return_logits,
            policy=self.retry,
            rng=self._rng,
            on_latency=self._latencies_s.append,
            headers={} if step is None else {"X-Client-Step": str(step)},
        )
        requests = split_items(encode_items(items), self.max_items_per_request, self.max_request_bytes)
        return [score_exchange(call, request) for request in requests]


class RewardClient(_Client):
    """Asks a reward service for scores. A context manager; safe to share between threads."""

    _http: httpx.Client

    def _open(self) -> None:
        self._http = httpx.Client(**self._http_options)
        bound(self._http)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def score(
        self,
        items: Sequence[ScoreItem],
        models: Sequence[str] | None = None,
        *,
        return_logits: bool = False,
        step: int | None = None,
    ) -> list[ItemResult]:
        """Score each item with each model.

        Args:
            items: Any number; large batches are split. One without an id is named by its index.
            models: `name`, `name@alias` or `name@version`; when None the pinned ones, or all loaded ones without pins.
            return_logits: Whether each segment carries the model's raw outputs.
            step: The step of the run that they are for, for the service's ledger; from 0 on.

        Returns:
            One result for each item, in order. A score that could not be given carries its `error`; it is never 0.

        Raises:
            ValueError: If `models` is empty or names a model twice.
            RewardClientError: If a request could not be answered; see `rl_client.api.errors`.
        """
        exchanges = self._score_exchanges(items, models, return_logits, step)
        if self.max_concurrency == 1 or len(exchanges) < 2:
            return join_results([self._run(exchange) for exchange in exchanges])
        with ThreadPoolExecutor(min(self.max_concurrency, len(exchanges))) as pool:
            futures = [pool.submit(self._run, exchange) for exchange in exchanges]
            try:
                return join_results([future.result() for future in futures])
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def models(self) -> list[ModelInfo]:
        """Every served model."""
        return self._run(endpoints.models_exchange(self._retries()))

    def model(self, name: str) -> ModelInfo:
        """One served model; `UnknownModelError` if it is not."""
        return self._run(endpoints.model_exchange(name, self._retries()))

    def pin(self, models: Sequence[str] | None = None) -> dict[str, Pin]:
        """Hold on to the versions and runtimes that the models (all when None) have at this moment.

        Later requests ask for `name@version`, and a score from elsewhere is a `ReplyError`.

        Returns:
            The pins made now, by model name; keep them to pass them to a later client as `pins`.
        """
        pins = self._run(endpoints.pin_exchange(models, self._retries()))
        self.pins.update(pins)
        return pins

    def segment(self, text: str, granularity: Granularity | str) -> SegmentReply:
        """The spans that the service divides a text into."""
        return self._run(endpoints.segment_exchange(text, Granularity(granularity), self._retries()))

    def ready(self) -> bool:
        """Whether the service is up and all its models can score, now: nothing is retried."""
        return self._run(endpoints.ready_exchange(self._retries(NO_RETRIES)))

    def _run(self, exchange: Exchange[T]) -> T:
        return run_sync(exchange, self._http, self.timeout_s)


class AsyncRewardClient(_Client):
    """`RewardClient` for asyncio: the same arguments, methods and errors; an async context manager."""

    _http: httpx.AsyncClient

    def _open(self) -> None:
        self._http = httpx.AsyncClient(**self._http_options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def score(
        self,
        items: Sequence[ScoreItem],
        models: Sequence[str] | None = None,
        *,
        return_logits: bool = False,
        step: int | None = None,
    ) -> list[ItemResult]:
        """See `RewardClient.score`."""
        free = asyncio.Semaphore(self.max_concurrency)

        async def run(exchange: Exchange[list[ItemResult]]) -> list[ItemResult]:
            async with free:
                return await self._run(exchange)

        tasks = [
            asyncio.ensure_future(run(exchange))
            for exchange in self._score_exchanges(items, models, return_logits, step)
        ]
        try:
            return join_results(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def models(self) -> list[ModelInfo]:
        """See `RewardClient.models`."""
        return await self._run(endpoints.models_exchange(self._retries()))

    async def model(self, name: str) -> ModelInfo:
        """See `RewardClient.model`."""
        return await self._run(endpoints.model_exchange(name, self._retries()))

    async def pin(self, models: Sequence[str] | None = None) -> dict[str, Pin]:
        """See `RewardClient.pin`."""
        pins = await self._run(endpoints.pin_exchange(models, self._retries()))
        self.pins.update(pins)
        return pins

    async def segment(self, text: str, granularity: Granularity | str) -> SegmentReply:
        """See `RewardClient.segment`."""
        return await self._run(endpoints.segment_exchange(text, Granularity(granularity), self._retries()))

    async def ready(self) -> bool:
        """See `RewardClient.ready`."""
        return await self._run(endpoints.ready_exchange(self._retries(NO_RETRIES)))

    async def _run(self, exchange: Exchange[T]) -> T:
        return await run_async(exchange, self._http, self.timeout_s)
