import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.core.source import SourceOutcome
from reward_service.core.telemetry import BatchReport
from reward_service.core.text_reward import Result
from reward_service.core.text_source import TextSource
from reward_service.domain import Head, ItemScore, ModelCard, ScoredSpan, Segmented, Span, TextItem
from reward_service.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    ModelFailedError,
    OverloadedError,
    PayloadTooLargeError,
    ServiceError,
    TooLongError,
)
from reward_service.request_labels import RequestLabels, current_request

TIMEOUT_S = 20.0


class Telemetry:
    def __init__(self) -> None:
        self.reports: list[BatchReport] = []
        self.encodings = 0

    def batch_done(self, report: BatchReport) -> None:
        self.reports.append(report)

    def encoded(self, model: str, tokenize_s: float, truncated: int) -> None:
        self.encodings += 1


class Reward:
    """A segment's score is 1 / (its characters); what a response says decides what goes wrong."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.under_way = 0
        self.most_under_way = 0
        self.cancelled = 0
        self.closed = False
        self.released = threading.Event()
        self.thread: threading.Thread | None = None
        self.request: RequestLabels | None = None

    async def score(self, responses: Sequence[Segmented]) -> Sequence[Result]:
        self.thread = threading.current_thread()
        self.request = current_request.get()
        self.calls.append([one.item.response for one in responses])
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            while any("hold" in one.item.response for one in responses) and not self.released.is_set():
                await asyncio.sleep(0.001)
            return [self._score(one) for one in responses][: 0 if "lose" in responses[0].item.response else None]
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1

    def _score(self, one: Segmented) -> Result:
        text = one.item.response
        if "raise" in text:
            raise ZeroDivisionError("secret detail")
        if "exit" in text:
            raise SystemExit(3)
        if "late" in text:
            raise TimeoutError
        if "long" in text:
            return TooLongError("too long")
        segments = [
            ScoredSpan(span, math.nan if "nan" in text else 1 / (span.end - span.start), None, ()) for span in one.spans
        ]
        return ItemScore(tuple(segments), sum(one.score for one in segments) if segments else 0.25)

    async def close(self) -> None:
        self.closed = True


class Rig:
    def __init__(self, granularity: Granularity = Granularity.SENTENCE, **options: int) -> None:
        self.reward = Reward()
        self.telemetry = Telemetry()
        head = Head(ModelKind.SEQUENCE_REGRESSION)
        card = ModelCard("mine", "v", "v", (), head, granularity, "en", "", 0, "python")
        given: dict[str, Any] = {"concurrency": 2, "max_queue_items": 100, **options}
        self.source = TextSource(card, self.reward, telemetry=self.telemetry, **given)
        self.source.start()

    async def score(self, *texts: str, timeout_s: float | None = None, job: str = "") -> SourceOutcome:
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        return await self.source.score([TextItem("", text) for text in texts], deadline_s, job)

    def results(self, *texts: str) -> list[Result]:
        return only(asyncio.run(self.score(*texts)))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not holds():
                await asyncio.sleep(0.001)


def only(outcome: SourceOutcome) -> list[Result]:
    return [result for (result,) in outcome.results]


def codes(results: Sequence[Result]) -> list[str]:
    return [result.code if isinstance(result, ServiceError) else "score" for result in results]


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(*arguments: Any, **options: int) -> Rig:
        made.append(Rig(*arguments, **options))
        return made[-1]

    yield make
    for rig in made:
        rig.reward.released.set()
        rig.source.close(TIMEOUT_S)
        assert not rig.source.alive


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


def test_items_go_in_groups_and_only_so_many_at_a_time(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(batch_items=2)

    async def scenario() -> None:
        scoring = asyncio.create_task(rig.score(*(f"hold {n}." for n in range(7))))
        await rig.until(lambda: rig.reward.under_way == 2)
        await rig.until(lambda: rig.source.queue_items == 3)
        rig.reward.released.set()
        assert codes(only(await scoring)) == ["score"] * 7

    asyncio.run(scenario())
    assert [len(call) for call in rig.reward.calls] == [2, 2, 2, 1]
    assert rig.reward.most_under_way == 2
    assert rig.source.queue_items == 0


def test_a_full_queue_refuses_in_place_and_tells_when_to_come_back(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(concurrency=1, max_queue_items=2)

    async def scenario() -> None:
        first = asyncio.create_task(rig.score("hold"))
        await rig.until(lambda: rig.reward.under_way == 1)
        waiting = asyncio.create_task(rig.score("b", "c"))
        await rig.until(lambda: rig.source.queue_items == 2)
        (refused,) = only(await rig.score("d"))
        assert isinstance(refused, OverloadedError)
        assert refused.retry_after_s is not None
        (never,) = {type(result) for result in only(await rig.score("e", "f", "g"))}
        assert never is PayloadTooLargeError
        rig.reward.released.set()
        assert codes([*only(await first), *only(await waiting)]) == ["score"] * 3

    asyncio.run(scenario())


def test_what_is_late_is_told_in_place_and_what_waits_past_its_deadline_costs_nothing(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(concurrency=1)

    async def scenario() -> None:
        results = only(await rig.score("hold", "Never asked.", timeout_s=0.2))
        assert codes(results) == ["deadline_exceeded", "deadline_exceeded"]
        assert isinstance(results[1], DeadlineExceededError)
        await rig.until(lambda: rig.reward.under_way == 0)
        assert only(await rig.score("Next."))[0]
        assert rig.source.queue_items == 0

    asyncio.run(scenario())
    assert ["Never asked."] not in rig.reward.calls


def test_a_caller_that_leaves_cancels_its_calls(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(concurrency=1)

    async def scenario() -> None:
        scoring = asyncio.create_task(rig.score("hold", "Never asked."))
        await rig.until(lambda: rig.reward.under_way == 1)
        scoring.cancel()
        await rig.until(lambda: rig.reward.cancelled == 1 and rig.source.queue_items == 0)
        assert codes(only(await rig.score("Next."))) == ["score"]

    asyncio.run(scenario())
    assert rig.reward.calls == [["hold"], ["Next."]]


def test_closing_fails_what_is_under_way_instead_of_leaving_it_hanging(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(concurrency=1)

    async def scenario() -> None:
        scoring = asyncio.create_task(rig.score("hold", "waits"))
        await rig.until(lambda: rig.reward.under_way == 1)
        await asyncio.to_thread(rig.source.close, TIMEOUT_S)
        results = only(await scoring)
        assert codes(results) == ["model_failed", "model_failed"]
        assert isinstance(results[0], ModelFailedError)
        assert codes(only(await rig.score("After."))) == ["model_failed"]

    asyncio.run(scenario())
    assert rig.reward.closed
    assert not rig.source.alive


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


def test_the_wait_is_estimated_from_the_speed_of_past_calls(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(concurrency=2)
    assert rig.source.estimated_wait_s == 0.0
    rig.source._item_s = 3.0
    rig.source._room.add("flood", 4, 4)
    assert rig.source.estimated_wait_s == 6.0  # 4 items of 3 s, two at a time.
    rig.source._room.remove("flood", 4, 4)


def test_a_job_gets_its_turn_beside_one_that_floods(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(concurrency=1)

    async def scenario() -> None:
        held = asyncio.create_task(rig.score("hold"))
        await rig.until(lambda: rig.reward.under_way == 1)
        flood = asyncio.create_task(rig.score("f0", "f1", "f2", "f3", job="flood"))
        await rig.until(lambda: rig.source.queue_items == 4)
        light = asyncio.create_task(rig.score("l0", "l1", job="light"))
        await rig.until(lambda: rig.source.queue_items == 6)
        rig.reward.released.set()
        await asyncio.gather(held, flood, light)

    asyncio.run(scenario())
    assert [call[0] for call in rig.reward.calls[1:]] == ["f0", "l0", "f1", "l1", "f2", "f3"]


def test_the_reward_knows_the_request_that_it_works_for() -> None:
    rig = Rig()
    labels = RequestLabels("r-1", "night")

    async def ask() -> None:
        current_request.set(labels)
        await rig.score("One. Two.")

    asyncio.run(ask())
    assert rig.reward.request is labels
    rig.source.close(TIMEOUT_S)
