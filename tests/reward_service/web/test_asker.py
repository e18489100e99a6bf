"""Who asked and what was answered, as the ledger is told of it."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from reward_service.compat_settings import Compat
from reward_service.domain import ItemScore, ModelOutcome, TextItem
from reward_service.errors import TooLongError
from reward_service.ledger.answer import Asker

ITEM = {"prompt": "Why?", "response": "It rains. It pours.", "fields": {"question": "q"}}


class Kept:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.told: list[tuple[Asker, list[str], list[TextItem], list[ModelOutcome]]] = []

    def record(
        self, asker: Asker, item_ids: Sequence[str], items: Sequence[TextItem], models: Sequence[ModelOutcome]
    ) -> None:
        self.told.append((asker, list(item_ids), list(items), list(models)))


def test_a_reply_is_recorded_with_who_asked(make_service: Callable[..., Any]) -> None:
    ledger = Kept()
    service = make_service(ledger=ledger)
    headers = {"X-Client-Job": "a job", "X-Client-Run": "käse".encode(), "X-Client-Step": "007", "X-Request-Id": "r-1"}
    body = {"items": [ITEM, {**ITEM, "id": "x", "response": "y" * 3000}], "models": ["factuality", "completeness"]}
    reply = service.score(body, headers=headers)
    assert reply.status_code == 200
    ((asker, item_ids, items, models),) = ledger.told
    assert asker == Asker("r-1", "a job", "käse", 7)
    assert item_ids == ["0", "x"]
    assert items[0] == TextItem("Why?", "It rains. It pours.", {"question": "q"})
    for model in models:
        told = [result["scores"][model.card.name] for result in reply.json()["results"]]
        first = model.results[0]
        assert isinstance(first, ItemScore)
        assert first.sequence_score == told[0]["sequence_score"]
        assert [(s.span.start, s.span.end, s.score, s.label) for s in first.segments] == [
            (s["start"], s["end"], s["score"], s["label"]) for s in told[0]["segments"]
        ]
        assert isinstance(model.results[1], TooLongError)


def test_who_names_nothing(make_service: Callable[..., Any]) -> None:
    ledger = Kept()
    make_service(ledger=ledger).score({"items": [ITEM]}, headers={"X-Request-Id": "r"})
    assert ledger.told[0][0] == Asker("r")


def test_what_is_latin_1_alone_is_taken_for_that(make_service: Callable[..., Any]) -> None:
    ledger = Kept()
    make_service(ledger=ledger).score({"items": [ITEM]}, headers={"X-Client-Run": "käse".encode("latin-1")})
    assert ledger.told[0][0].run == "käse"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Client-Step", "-1"),
        ("X-Client-Step", "1.0"),
        ("X-Client-Step", ""),
        ("X-Client-Step", "9" * 19),
        ("X-Client-Step", "\u0663"),
        ("X-Client-Run", "r" * 257),
        ("X-Client-Run", "a\tb"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/score", "/rm"])
def test_what_they_cannot_be_is_refused_before_anything_is_computed(
    make_service: Callable[..., Any], path: str, name: str, value: str
) -> None:
    service = make_service(compat=Compat(weights={"factuality": 1.0}))
    body = {"items": [ITEM]} if path == "/v1/score" else {"prompt": "p", "response": "r"}
    reply = service.request("POST", path, json=body, headers={name: value.encode()})
    assert reply.status_code == 422
    error = reply.json()["error"]
    assert (error["code"], error["details"]["path"]) == ("invalid_request", name)
    assert not service.metric("reward_batch_items_count", model="factuality")


def test_a_reply_of_another_protocol_is_recorded(make_service: Callable[..., Any]) -> None:
    ledger = Kept()
    service = make_service(ledger=ledger, compat=Compat(weights={"factuality": 2.0}))
    body = {"query": ["Why? It rains.", "Who? Me."], "prompts": ["Why?", "Who?"]}
    reply = service.request("POST", "/get_reward", json=body, headers={"X-Client-Step": "3"})
    ((asker, item_ids, items, (model,)),) = ledger.told
    assert (asker.step, item_ids) == (3, ["0", "1"])
    assert [(item.prompt, item.response) for item in items] == [("Why?", "It rains."), ("Who?", "Me.")]
    assert [2.0 * result.sequence_score for result in model.results] == reply.json()["rewards"]


def test_what_no_trainer_got_is_not_recorded(make_service: Callable[..., Any]) -> None:
    ledger = Kept()
    service = make_service(ledger=ledger, compat=Compat(weights={"factuality": 1.0, "completeness": 1.0}))
    reply = service.request("POST", "/get_reward", json={"query": ["fine", "x" * 3000], "prompts": ["", ""]})
    assert reply.status_code == 422
    assert service.request("POST", "/get_reward", json={"query": []}).status_code == 200
    assert ledger.told == []
