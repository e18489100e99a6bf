from collections.abc import Callable

import httpx
import pytest

from reward_proto import Granularity, ModelKind
from rl_client.api.testing import FakeModel, FakeRewardService


def test_the_example_prints_what_the_page_says(
    run_examples: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    factuality = FakeModel(
        "factuality",
        score=lambda text: 1.0 if "album" in text else 0.5,
        granularity=Granularity.SENTENCE,
        kind=ModelKind.TOKEN_CLASSIFICATION,
    )
    fake = FakeRewardService([factuality, FakeModel("completeness", score=lambda text: 0.5)])
    monkeypatch.setattr(
        httpx.HTTPTransport, "handle_request", lambda _, request: fake.transport.handle_request(request)
    )
    run_examples("protocols.md")
