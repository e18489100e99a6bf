import asyncio

import pytest

from reward_proto import Granularity, ModelKind, ScoreItem, ScoreReply
from reward_service.domain import Head, ItemScore, ModelCard, ModelOutcome, Outcome, ScoredSpan, Span
from reward_service.errors import InvalidRequestError, TooLongError
from reward_service.web.convert import PAUSE_SEGMENTS, to_ids, to_reply, to_text_item, to_text_items

CARD = ModelCard(
    name="fine",
    version="0123456789ab",
    digest="0123456789ab" + "0" * 52,
    aliases=(),
    head=Head(ModelKind.TOKEN_CLASSIFICATION, ("ok", "bad"), "ok"),
    granularity=Granularity.SENTENCE,
    language="en",
    template="",
    max_tokens=10,
    runtime="fake-fp32",
)
SEGMENT = ScoredSpan(Span(0, 1), 0.25, "ok", (1.0, 2.0))


def outcome_of(*results: ItemScore | TooLongError) -> Outcome:
    return Outcome((ModelOutcome(CARD, results),), 3, 4, 0.0, 0.0, 0.0)


def test_ids_are_given_or_the_index() -> None:
    assert to_ids([ScoreItem(response="a"), ScoreItem(response="b", id=""), ScoreItem(response="c")]) == ["0", "", "2"]


def test_a_shared_id_names_both_items() -> None:
    items = [ScoreItem(response="a", id="x"), ScoreItem(response="b"), ScoreItem(response="c", id="x")]
    with pytest.raises(InvalidRequestError, match=r"items\.2\.id: 'x' is the id of item 0 too"):
        to_ids(items)


def test_spans_become_domain_spans() -> None:
    item = ScoreItem(prompt="p", response="ab", fields={"q": "1"}, segments={Granularity.SENTENCE: [(0, 2)]})
    inside = to_text_item(item)
    assert (inside.prompt, inside.response, inside.fields) == ("p", "ab", {"q": "1"})
    assert inside.segments == {Granularity.SENTENCE: (Span(0, 2),)}


def test_items_with_spans_are_what_they_are_one_by_one() -> None:
    items = [ScoreItem(response="ab"), ScoreItem(response="ab", segments={Granularity.SENTENCE: [(0, 1), (1, 2)]})]
    assert asyncio.run(to_text_items(items)) == [to_text_item(item) for item in items]
    assert asyncio.run(to_text_items(items[:1])) == [to_text_item(items[0])]


def test_a_reply_is_that_of_the_contract() -> None:
    outcome = outcome_of(ItemScore((SEGMENT,), 0.25), TooLongError("too long"), ItemScore((), None))
    reply = ScoreReply.model_validate_json(
        asyncio.run(to_reply(['é"', "b", "c"], outcome, 'r"1', return_logits=True)), strict=True
    )
    assert [result.id for result in reply.results] == ['é"', "b", "c"]
    first, second, third = (result.scores["fine"] for result in reply.results)
    assert [(s.start, s.end, s.score, s.label, s.logits) for s in first.segments or []] == [
        (0, 1, 0.25, "ok", [1.0, 2.0])
    ]
    assert (second.segments, second.error and second.error.message) == (None, "too long")
    assert third.segments == []
    assert (reply.usage.input_tokens, reply.usage.padded_tokens, reply.request_id) == (3, 4, 'r"1')


def test_a_reply_has_every_field_of_the_contract_in_its_order() -> None:
    outcome = outcome_of(ItemScore((SEGMENT,), 0.25, 3, cached=True), TooLongError("too long"), ItemScore((), None))
    for return_logits in (False, True):
        body = asyncio.run(to_reply(["a", "b", "c"], outcome, "r", return_logits=return_logits))
        assert ScoreReply.model_validate_json(body, strict=True).model_dump_json().encode() == body


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_what_json_cannot_tell_is_no_score(score: float) -> None:
    for result in (ItemScore((SEGMENT,), score), ItemScore((ScoredSpan(Span(0, 1), score, None, ()),), 0.5)):
        with pytest.raises(ValueError, match="a score is"):
            asyncio.run(to_reply(["a"], outcome_of(result), "r", return_logits=False))


def test_others_have_their_turn_while_a_large_reply_is_built() -> None:
    outcome = outcome_of(*[ItemScore((SEGMENT,) * (PAUSE_SEGMENTS // 2), 0.25)] * 20)
    turns = 0

    async def scenario() -> None:
        nonlocal turns
        building = asyncio.create_task(to_reply([str(i) for i in range(20)], outcome, "r", return_logits=False))
        while not building.done():
            turns += 1
            await asyncio.sleep(0)

    asyncio.run(scenario())
    assert turns >= 10
