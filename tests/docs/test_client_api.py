from collections.abc import Callable

import httpx
import pytest

from reward_proto import ErrorCode, Granularity, ModelKind
from rl_client.api.testing import FakeModel, FakeRewardService


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> FakeRewardService:
    """Answers whatever goes to the network."""
    factuality = FakeModel(
        "factuality",
        score=lambda text: 1.0 if "album" in text else 0.5,
        granularity=Granularity.SENTENCE,
        kind=ModelKind.TOKEN_CLASSIFICATION,
        version="aaaaaaaaaaaa",
    )
    completeness = FakeModel("completeness", score=lambda text: len(text.split()) / 2, version="bbbbbbbbbbbb")
    fake = FakeRewardService([factuality, completeness])
    fake.fail_scores("factuality", ErrorCode.TOO_LONG, item_id="q3")
    monkeypatch.setattr(
        httpx.HTTPTransport, "handle_request", lambda _, request: fake.transport.handle_request(request)
    )
    monkeypatch.setattr(
        httpx.AsyncHTTPTransport,
        "handle_async_request",
        lambda _, request: fake.transport.handle_async_request(request),
    )
    return fake


def test_every_example_prints_what_the_page_says(
    service: FakeRewardService, run_examples: Callable[[str], None]
) -> None:
    run_examples("client-api.md")
