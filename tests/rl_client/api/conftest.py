import random

import pytest

from reward_proto import Calibration, Granularity, ModelKind
from rl_client.api import RetryPolicy
from rl_client.api.testing import FakeModel, FakeRewardService

QUICK = RetryPolicy(retry_for_s=5.0, initial_delay_s=0.001, max_delay_s=0.002)


@pytest.fixture
def quick() -> RetryPolicy:
    """A policy whose waits take no time to speak of."""
    return QUICK


@pytest.fixture
def rng() -> random.Random:
    return random.Random(0)


@pytest.fixture
def service() -> FakeRewardService:
    return FakeRewardService(
        [
            FakeModel(
                "relevance",
                score=lambda text: 0.25 if "bad" in text else 0.75,
                granularity=Granularity.SENTENCE,
                kind=ModelKind.TOKEN_CLASSIFICATION,
                version="aaaaaaaaaaaa",
            ),
            FakeModel(
                "completeness",
                score=lambda text: float(len(text)),
                version="bbbbbbbbbbbb",
                calibration=Calibration(mean=1.0, std=2.0),
            ),
        ]
    )
