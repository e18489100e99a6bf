"""The same call by the client that blocks and by the one that is awaited; a test marked `both` runs by each."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from reward_proto import ErrorCode, ItemResult, ModelScore, ScoreItem
from rl_client.api import AsyncRewardClient, RewardClient
from rl_client.api.testing import FakeRewardService

URL = "http://reward"
ITEMS = [ScoreItem(id=f"q{n}", response="Good. " * (n % 3) + "bad " * n) for n in range(7)]
Score = Callable[..., list[ItemResult]]


def sync_score(
    service: FakeRewardService, items: list[ScoreItem], models: Any = None, **settings: Any
) -> list[ItemResult]:
    with RewardClient(URL, transport=service.transport, **settings) as client:
        return client.score(items, models)


def async_score(
    service: FakeRewardService, items: list[ScoreItem], models: Any = None, **settings: Any
) -> list[ItemResult]:
    async def run() -> list[ItemResult]:
        async with AsyncRewardClient(URL, transport=service.transport, **settings) as client:
            return await client.score(items, models)

    return asyncio.run(run())


both = pytest.mark.parametrize("score", [sync_score, async_score])


def sequence(result: ItemResult, model: str) -> float | None:
    return result.scores[model].sequence_score


def codes(results: list[ItemResult], model: str) -> list[ErrorCode | None]:
    scores: list[ModelScore] = [result.scores[model] for result in results]
    return [score.error.code if score.error else None for score in scores]
