"""What the scorer answers."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from reward_proto.score import Granularity
from reward_service.backends.fake_backend import FakeBackend
from reward_service.core.division import Division
from reward_service.core.encoder_source import EncoderSource
from reward_service.core.scorer import Scorer
from reward_service.core.token_queue import TokenQueue
from reward_service.core.worker import Entry, Worker
from reward_service.domain import Encoded, ItemScore, Read, Span, TextItem
from reward_service.errors import InvalidRequestError, MissingFieldError, UnknownModelError
from tests.reward_service.core.scorer_rig import MAX_TOKENS, SCALAR_HEAD, SPAN_HEAD, TIMEOUT_S, Rig, codes, text


def test_every_model_scores_every_item_in_order(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    outcome = asyncio.run(rig.scorer.score([text("One two. Three four five."), text("Six.")]))
    assert [model.card.name for model in outcome.models] == ["fine", "whole"]
    fine, whole = (model.results for model in outcome.models)
    assert isinstance(fine[0], ItemScore)
    assert [segment.span for segment in fine[0].segments] == [Span(0, 8), Span(9, 25)]
    # Ids 8 and 16; logits +-(id % 7) / 7, so P(ok) = 1 / (1 + exp(-2 (id % 7) / 7)).
    assert [s.score for s in fine[0].segments] == pytest.approx([1 / (1 + np.exp(-2 / 7)), 1 / (1 + np.exp(-4 / 7))])
    assert [r.sequence_score for r in whole if isinstance(r, ItemScore)] == pytest.approx([25 % 7 / 7, 4 / 7])
    assert outcome.input_tokens == 2 + 1 + 1 + 1
    assert outcome.padded_tokens == 2 + 2 + 1 + 1


def test_models_are_named_by_alias_or_version_and_run_once(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    names = ["whole@good", "fine@0123456789ab", "whole"]
    outcome = asyncio.run(rig.scorer.score([text("a")], names))
    assert [model.card.name for model in outcome.models] == ["whole", "fine"]
    for unknown in ("nobody", "fine@older", "fine@", ""):
        with pytest.raises(UnknownModelError):
            asyncio.run(rig.scorer.score([text("a")], ["fine", unknown]))


def test_a_blank_response_costs_a_span_model_nothing(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    outcome = asyncio.run(rig.scorer.score([text(" \n"), text("")]))
    fine, whole = (model.results for model in outcome.models)
    assert fine == (ItemScore((), None), ItemScore((), None))
    assert all(isinstance(r, ItemScore) and r.segments == () and r.sequence_score == 0.0 for r in whole)
    assert {report.model for report in rig.telemetry.reports} == {"whole"}


def test_an_error_stands_in_its_own_place(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    long = ". ".join(["Word"] * (MAX_TOKENS + 2))
    outcome = asyncio.run(rig.scorer.score([text("a", question=None), text(long), text("b")]))
    assert [codes(model.results) for model in outcome.models] == [
        ["score", "too_long", "score"],
        ["missing_field", "score", "score"],
    ]


def test_one_common_error_answers_the_whole_request(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    items = [text("a", question=None), text("b", question=None)]
    with pytest.raises(MissingFieldError):
        asyncio.run(rig.scorer.score(items, ["whole"]))


def test_callers_spans_are_used_and_checked(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    own = {Granularity.SENTENCE: (Span(0, 2), Span(3, 5))}
    outcome = asyncio.run(rig.scorer.score([text("ab cd", segments=own)], ["fine"]))
    (result,) = outcome.models[0].results
    assert isinstance(result, ItemScore)
    assert [segment.span for segment in result.segments] == [Span(0, 2), Span(3, 5)]
    bad = {Granularity.PARAGRAPH: (Span(0, 9),)}
    with pytest.raises(InvalidRequestError, match=r"items\.1\.segments\.paragraph") as caught:
        asyncio.run(rig.scorer.score([text("b"), text("a", segments=bad)]))
    assert caught.value.details == {"path": "items.1.segments.paragraph"}


def test_a_request_reaches_the_queue_whole(make_rig: Callable[..., Rig]) -> None:
    """So that a lone caller's batches, and with them its scores, do not depend on timing."""
    rig = make_rig()
    asyncio.run(rig.scorer.score([text(f"{'a' * n}.") for n in range(1, 30)], ["fine"]))
    assert [report.items for report in rig.telemetry.reports] == [29]


def test_segment_gives_code_point_pairs(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    assert asyncio.run(rig.scorer.segment("Hi 😀.  Bye.", Granularity.SENTENCE)) == ((0, 5), (7, 11))


class TwoHeadEncoder:
    """The first head reads every sentence, the second the first token."""

    def encode(self, item: TextItem, spans_by_head: Sequence[tuple[Span, ...]]) -> Encoded:
        spans, whole = spans_by_head
        ids = np.array([span.end - span.start for span in spans], dtype=np.int64)
        return Encoded(ids, (Read(np.arange(len(ids)), spans), Read(np.zeros(1, dtype=np.int64), whole)))


def test_models_that_share_a_network_cost_one_forward_pass(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    heads = [replace(SPAN_HEAD, name="a"), replace(SCALAR_HEAD, name="b", first_column=2)]
    queue: TokenQueue[Entry] = TokenQueue(max_items=9, max_tokens=99, max_batch_tokens=99, max_padding=0.9)
    worker = Worker("both", [Division(FakeBackend(*heads))], heads, 0, queue, rig.telemetry)
    (fine,), (whole,) = rig.fine.cards, rig.whole.cards
    cards = [replace(fine, name="a", head=heads[0]), replace(whole, name="b", head=heads[1])]
    source = EncoderSource(cards, TwoHeadEncoder(), worker, pool=rig.pool, telemetry=rig.telemetry)
    source.start()
    scorer = Scorer([source], rig.pool)
    outcome = asyncio.run(scorer.score([text("One two. Three.")], ["b", "a"]))
    assert [model.card.name for model in outcome.models] == ["b", "a"]
    (scalar,), (spans,) = (model.results for model in outcome.models)
    # Ids 8 and 6. Columns 0 and 1 are +-(id % 7) / 7, column 2 is -(id % 7) / 7 of the first token.
    assert isinstance(scalar, ItemScore)
    assert scalar.sequence_score == pytest.approx(-1 / 7)
    assert isinstance(spans, ItemScore)
    assert [s.score for s in spans.segments] == pytest.approx([1 / (1 + np.exp(-2 / 7)), 1 / (1 + np.exp(-12 / 7))])
    assert [report.items for report in rig.telemetry.reports] == [1]
    assert outcome.input_tokens == 2
    assert [name for name, _ in rig.telemetry.reports[0].scores] == ["a", "b"]
    one = asyncio.run(scorer.score([text("One two. Three.")], ["b"]))
    assert [model.card.name for model in one.models] == ["b"]
    source.close(TIMEOUT_S)
