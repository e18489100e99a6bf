"""Several replicas of one service, asked as one."""

import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import httpx

from reward_proto import ItemResult, ModelInfo, ModelScore, ScoreItem
from reward_proto.errors import ErrorCode
from rl_client.api import RetryPolicy, RewardClient
from rl_client.api.errors import ApiStatusError, RewardClientError
from rl_client.api.retry import MODEL_FAULTS
from rl_client.api.scoring import refused_score
from rl_client.errors import VersionChangedError

ELSEWHERE_AFTER_S = 5.0
"""Where there are several replicas, how long one is asked again before another one is."""
AVOID_FOR_S = 30.0
"""How long a replica that failed is asked only if no other is left."""
OF_EACH_ITEM = frozenset({ErrorCode.TOO_LONG, ErrorCode.MISSING_FIELD})
"""Codes that answer a whole request only where each score in it failed with them."""
OF_SOME_ITEM = MODEL_FAULTS | {ErrorCode.DEADLINE_EXCEEDED, ErrorCode.INVALID_REQUEST, ErrorCode.PAYLOAD_TOO_LARGE}
"""Codes of a whole request that fewer items may not get."""


@dataclass(frozen=True, slots=True)
class Connection:
    """How the replicas are reached; see `RewardClient`.

    Attributes:
        urls: Where they listen.
        api_key: Sent to each.
        client_job: Named to each.
        timeout_s: Bound of one attempt.
        retry_for_s: How long a request is tried again, over all replicas.
        concurrency: Requests in flight to one replica.
    """

    urls: tuple[str, ...]
    api_key: str | None = field(default=None, repr=False)
    client_job: str | None = None
    timeout_s: float = 60.0
    retry_for_s: float = 300.0
    concurrency: int = 4


@dataclass(slots=True)
class _Replica:
    client: RewardClient
    in_flight: int = 0
    avoid_until_s: float = 0.0


class Replicas:
    """Asks whichever replica has least to do, another one where one fails. A context manager; safe to share.

    Args:
        connection: Where they are.
        transport: An httpx transport in place of the network.
    """

    def __init__(self, connection: Connection, transport: httpx.BaseTransport | None = None) -> None:
        several = len(connection.urls) > 1
        policy = RetryPolicy(
            retry_for_s=min(connection.retry_for_s, ELSEWHERE_AFTER_S) if several else connection.retry_for_s
        )
        self._retry_for_s = connection.retry_for_s if several else 0.0
        self._rng = random.Random()
        self._lock = threading.Lock()
        self._replicas = [
            _Replica(
                RewardClient(
                    url,
                    api_key=connection.api_key,
                    client_job=connection.client_job,
                    timeout_s=connection.timeout_s,
                    retry=policy,
                    max_concurrency=connection.concurrency,
                    transport=transport,
                )
            )
            for url in connection.urls
        ]
        self.models: dict[str, ModelInfo] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for replica in self._replicas:
            replica.client.close()

    def pin(self, models: Sequence[str] | None) -> dict[str, tuple[str, str]]:
        """Hold on to the versions and runtimes that the models (all when None) have now, and refuse others.

        Returns:
            By model name the version and the runtime.

        Raises:
            RewardClientError: If a replica cannot be reached or does not serve a model.
            VersionChangedError: If two replicas serve something else under one name.
        """
        pins: dict[str, tuple[str, str]] = {}
        for replica in self._replicas:
            found = {name: (pin.version, pin.runtime or "") for name, pin in replica.client.pin(models).items()}
            if pins and found != pins:
                raise VersionChangedError(f"the replicas serve different models: {pins} and {found}")
            pins = found
        served = {(info.name, info.version): info for info in self._replicas[0].client.models()}
        self.models = {name: served[name, version] for name, (version, _) in pins.items()}
        return pins

    def score(self, items: Sequence[ScoreItem], models: Sequence[str]) -> list[Mapping[str, ModelScore]]:
        """Each item's scores by the pinned models of these names; in place of one that cannot be given its error.

        A request that fails as a whole, though not for want of the service, is divided until the items that it fails
        for are alone.

        Raises:
            RewardClientError: If the service cannot be asked: no replica answers, a key is refused, a model is gone.
        """
        try:
            return [result.scores for result in self._ask(items, models)]
        except ApiStatusError as error:
            if error.code in OF_EACH_ITEM or (error.code in OF_SOME_ITEM and len(items) == 1):
                return [{name: refused_score(self.models[name], error) for name in models} for _ in items]
            if error.code not in OF_SOME_ITEM:
                raise
        half = len(items) // 2
        return [*self.score(items[:half], models), *self.score(items[half:], models)]

    def _ask(self, items: Sequence[ScoreItem], models: Sequence[str]) -> list[ItemResult]:
        gives_up_s: float | None = None
        while True:
            replica = self._take()
            try:
                return replica.client.score(items, models)
            except RewardClientError as error:
                item_fault = isinstance(error, ApiStatusError) and error.code in OF_SOME_ITEM
                now_s = time.monotonic()
                gives_up_s = now_s + self._retry_for_s if gives_up_s is None else gives_up_s
                if item_fault or not error.retryable or now_s >= gives_up_s:
                    raise
                replica.avoid_until_s = now_s + AVOID_FOR_S
            finally:
                with self._lock:
                    replica.in_flight -= 1

    def _take(self) -> _Replica:
        now_s = time.monotonic()
        with self._lock:
            replica = min(
                self._replicas, key=lambda one: (one.avoid_until_s > now_s, one.in_flight, self._rng.random())
            )
            replica.in_flight += 1
            return replica
