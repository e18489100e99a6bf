"""The endpoints against the native one: the same texts get the same scores."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from reward_service.compat_settings import Compat

PROMPT, RESPONSE = "Why?", "It rains. It pours; the old man snores."
WEIGHTS = {"relevance": 0.3, "factuality": 0.5, "completeness": -0.2}
REQUESTS: dict[str, Any] = {
    "/get_reward": {"query": [f"<s>{PROMPT} {RESPONSE}</s>"], "prompts": [PROMPT]},
    "/classify": {"input": f"{PROMPT} A: {RESPONSE}"},
    "/predict": {"inputs": [PROMPT, RESPONSE]},
    "/rm": {"prompt": PROMPT, "response": RESPONSE},
    "/v1/rewards": {"messages": [f"{PROMPT} A: {RESPONSE}"]},
}
READ: dict[str, Callable[[Any], float]] = {
    "/get_reward": lambda reply: reply["rewards"][0],
    "/classify": lambda reply: reply["data"][-1]["probs"][-1],
    "/predict": lambda reply: reply[0]["score"],
    "/rm": lambda reply: reply,
    "/v1/rewards": lambda reply: reply["scores"][0],
}


@pytest.mark.parametrize("path", list(REQUESTS))
def test_the_models_read_the_same_as_natively(
    path: str, make_service: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(compat=Compat(weights=WEIGHTS, fields={"question": "{prompt}"}, response_after=" A: "))
    seen: list[Any] = []
    score = service.scorer.score

    async def spy(items: Any, *arguments: Any) -> Any:
        seen.append((next(iter(items)), arguments[0]))
        return await score(items, *arguments)

    monkeypatch.setattr(service.scorer, "score", spy)
    item = {"prompt": PROMPT, "response": RESPONSE, "fields": {"question": PROMPT}}
    native = service.score({"items": [item], "models": list(WEIGHTS)}).json()["results"][0]["scores"]
    expected = sum(weight * native[name]["sequence_score"] for name, weight in WEIGHTS.items())
    reply = service.request("POST", path, json=REQUESTS[path])
    assert reply.status_code == 200, reply.text
    assert READ[path](reply.json()) == pytest.approx(expected, abs=1e-9)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("path", list(REQUESTS))
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"query": 1}', b"\xff", b'{"input": "\\ud800"}'])
def test_faulty_bodies_are_422(path: str, body: bytes, service: Any) -> None:
    reply = service.request("POST", path, content=body)
    assert reply.status_code == 422
    json.loads(reply.content)
