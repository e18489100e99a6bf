"""What a source over a reward that is not an encoder gives for each item."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.core.text_source import TextSource
from reward_service.domain import Head, ItemScore, ModelCard, Span, TextItem
from reward_service.errors import InvalidRequestError
from reward_service.request_labels import RequestLabels, current_request
from tests.reward_service.core.telemetry import Telemetry
from tests.reward_service.core.text_source_rig import TIMEOUT_S, Reward, Rig, codes, only


def test_each_item_gets_the_scores_of_its_segments(make_rig: Callable[..., Rig]) -> None:
    outcome = asyncio.run(make_rig().score("Ab. Cdef.", "Abcd."))
    first, second = only(outcome)
    assert isinstance(first, ItemScore)
    assert isinstance(second, ItemScore)
    assert [(s.span, s.score) for s in first.segments] == [(Span(0, 3), 1 / 3), (Span(4, 9), 1 / 5)]
    assert first.sequence_score == pytest.approx(8 / 15)
    assert second.sequence_score == 1 / 5


def test_a_callers_own_spans_are_honoured(make_rig: Callable[..., Rig]) -> None:
    own = (Span(0, 1), Span(2, 4))
    item = TextItem("", "a bc d", segments={Granularity.SENTENCE: own, Granularity.SEQUENCE: (Span(0, 6),)})
    (result,) = only(asyncio.run(make_rig().source.score([item], None)))
    assert isinstance(result, ItemScore)
    assert tuple(segment.span for segment in result.segments) == own


def test_a_blank_response_has_no_parts_but_is_a_whole(make_rig: Callable[..., Rig]) -> None:
    parts = make_rig()
    assert parts.results(" \n") == [ItemScore((), None)]
    assert parts.reward.calls == []
    assert make_rig(Granularity.SEQUENCE).results(" \n") == [ItemScore((), 0.25)]


@pytest.mark.parametrize("batch_items", [1, 4])
def test_one_items_failure_is_its_own(make_rig: Callable[..., Rig], batch_items: int) -> None:
    rig = make_rig(batch_items=batch_items)
    results = rig.results("Good.", "raise", "nan", "long", "\ud800.", "late", "Fine.")
    assert codes(results) == [
        "score",
        "model_failed",
        "model_failed",
        "too_long",
        "invalid_request",
        "model_failed",
        "score",
    ]
    assert isinstance(results[4], InvalidRequestError)
    assert "ZeroDivisionError" in str(results[1])
    assert "secret" not in str(results[1])


def test_a_reward_that_exits_fails_its_own_item_and_goes_on(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    assert codes(rig.results("exit", "Good.")) == ["model_failed", "score"]
    assert rig.source.alive
    assert codes(rig.results("Fine.")) == ["score"]


def test_too_few_results_are_asked_for_one_by_one_and_then_fail(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(batch_items=3)
    assert codes(rig.results("lose", "Good.", "Fine.")) == ["model_failed", "score", "score"]
    assert rig.reward.calls == [["lose", "Good.", "Fine."], ["lose"], ["Good."], ["Fine."]]


def test_a_source_that_was_never_started_can_be_closed() -> None:
    reward = Reward()
    card = ModelCard("m", "v", "v", (), Head(ModelKind.SEQUENCE_REGRESSION), Granularity.SENTENCE, "en", "", 0, "p")
    source = TextSource(card, reward, concurrency=1, max_queue_items=1, telemetry=Telemetry())
    assert not source.alive
    source.close(TIMEOUT_S)
    assert reward.closed


def test_a_reward_runs_on_a_thread_of_its_own_for_callers_of_any_loop(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    assert [codes(rig.results("One.")), codes(rig.results("Two."))] == [["score"], ["score"]]
    assert rig.reward.thread is not threading.main_thread()


def test_telemetry_is_told_of_each_call(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(batch_items=2)
    rig.results("Abc.", "raise", "Abcd. E.")
    (pair, single) = sorted(rig.telemetry.reports, key=lambda report: -report.items)
    assert (pair.model, pair.items, single.items, rig.telemetry.encodings) == ("mine", 2, 1, 1)
    assert pair.scores == (("mine", (0.25,)),)
    assert single.scores == (("mine", (pytest.approx(1 / 5 + 1 / 2),)),)
    assert (pair.real_tokens, pair.padded_tokens) == (0, 0)
    assert len(pair.queue_s) == 2


def test_the_reward_knows_the_request_that_it_works_for() -> None:
    rig = Rig()
    labels = RequestLabels("r-1", "night")

    async def ask() -> None:
        current_request.set(labels)
        await rig.score("One. Two.")

    asyncio.run(ask())
    assert rig.reward.request is labels
    rig.source.close(TIMEOUT_S)
