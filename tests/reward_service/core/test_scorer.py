import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.backends.fake_backend import FakeBackend
from reward_service.core.encoder_source import EncoderSource
from reward_service.core.fair_share import JobPolicies, JobPolicy
from reward_service.core.quotas import Quotas
from reward_service.core.scorer import Scorer
from reward_service.core.source import SourceOutcome, refuse_all
from reward_service.core.token_queue import TokenQueue
from reward_service.core.worker import BatchReport, Entry, Worker
from reward_service.domain import Batch, Encoded, Head, ItemScore, ModelCard, Read, Span, TextItem
from reward_service.errors import (
    DeadlineExceededError,
    DrainingError,
    InvalidRequestError,
    MissingFieldError,
    OverloadedError,
    PayloadTooLargeError,
    RateLimitedError,
    ServiceError,
    TooLongError,
    UnknownModelError,
)

SPAN_HEAD = Head(ModelKind.TOKEN_CLASSIFICATION, ("ok", "bad"), "ok")
SCALAR_HEAD = Head(ModelKind.SEQUENCE_REGRESSION)
MAX_TOKENS = 40
TIMEOUT_S = 20.0


class LengthEncoder:
    """One token a segment, whose id is the segment's number of characters; a field may be needed."""

    def __init__(self, kind: ModelKind, needs: str | None = None) -> None:
        self.kind = kind
        self.needs = needs

    def encode(self, item: TextItem, spans_by_head: Sequence[tuple[Span, ...]]) -> Encoded:
        if self.needs is not None and self.needs not in item.fields:
            raise MissingFieldError(f"no {self.needs}")
        spans = spans_by_head[0] or (Span(0, 0),)
        if len(spans) > MAX_TOKENS:
            raise TooLongError("too long")
        ids = np.array([span.end - span.start for span in spans], dtype=np.int64)
        is_span_model = self.kind is ModelKind.TOKEN_CLASSIFICATION
        return Encoded(ids, (Read(np.arange(len(ids) if is_span_model else 0, dtype=np.int64), spans),))


class Telemetry:
    def __init__(self) -> None:
        self.reports: list[BatchReport] = []

    def batch_done(self, report: BatchReport) -> None:
        self.reports.append(report)

    def encoded(self, model: str, tokenize_s: float, truncated: int) -> None:
        pass


class Rig:
    """A scorer over a span model `fine` (sentences) and a scalar model `whole`, on fake backends."""

    def __init__(self, **limits: int) -> None:
        self.telemetry = Telemetry()
        self.release = threading.Event()
        self.entered = threading.Event()
        self.release.set()
        self.pool = ThreadPoolExecutor(2)
        self.limits = {"max_queue_items": 100, "max_queue_tokens": 1000, **limits}
        self.fine = self.make("fine", SPAN_HEAD, Granularity.SENTENCE, needs=None)
        self.whole = self.make("whole", SCALAR_HEAD, Granularity.SEQUENCE, needs="question")
        self.scorer = Scorer([self.fine, self.whole], self.pool)

    def make(self, name: str, head: Head, granularity: Granularity, needs: str | None) -> EncoderSource:
        queue: TokenQueue[Entry] = TokenQueue(
            max_items=self.limits["max_queue_items"],
            max_tokens=self.limits["max_queue_tokens"],
            max_batch_tokens=1000,
            max_padding=0.9,
        )
        worker = Worker(name, FakeBackend(head, before=self.hold), [head], 0, queue, self.telemetry)
        worker.start()
        card = ModelCard(
            name=name,
            version="0123456789ab",
            digest="0123456789ab" + "0" * 52,
            aliases=("latest", "good"),
            head=head,
            granularity=granularity,
            language="en",
            template="",
            max_tokens=MAX_TOKENS,
            runtime="fake-fp32",
        )
        return EncoderSource(
            [card],
            LengthEncoder(head.kind, needs),
            worker,
            pool=self.pool,
            telemetry=self.telemetry,
        )

    def hold(self, _: Batch) -> None:
        self.entered.set()
        assert self.release.wait(TIMEOUT_S)

    async def until_busy(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, TIMEOUT_S)


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(**limits: int) -> Rig:
        made.append(Rig(**limits))
        return made[-1]

    yield make
    for rig in made:
        rig.release.set()
        rig.scorer.close(TIMEOUT_S)


def text(response: str, question: str | None = "q", **more: Any) -> TextItem:
    return TextItem("", response, {} if question is None else {"question": question}, **more)


def codes(results: tuple[ItemScore | ServiceError, ...]) -> list[str]:
    return ["score" if isinstance(result, ItemScore) else result.code.value for result in results]


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


def test_what_is_late_is_late_in_its_own_place(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()

    async def scenario() -> None:
        rig.release.clear()
        blocker = asyncio.create_task(rig.scorer.score([text("blocks")], ["whole"]))
        await rig.until_busy()
        # `fine` has nothing to infer for a blank response; `whole` is stuck behind the blocker.
        outcome = await rig.scorer.score([text(" ")], timeout_s=0.05)
        assert [codes(model.results) for model in outcome.models] == [["score"], ["deadline_exceeded"]]
        with pytest.raises(DeadlineExceededError):
            await rig.scorer.score([text("b")], ["whole"], timeout_s=0.05)
        rig.release.set()
        await blocker

    asyncio.run(scenario())
    assert sum(report.items for report in rig.telemetry.reports) == 1, "late work is dropped, not computed"


def test_what_is_late_behind_others_was_let_into_a_full_service(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()

    async def scenario() -> None:
        rig.release.clear()
        blocker = asyncio.create_task(rig.scorer.score([text("blocks")], ["fine"]))
        await rig.until_busy()
        rig.fine.worker.cost.observe(items=1, real_tokens=1, padded_tokens=1, duration_s=0.001)
        waiting = asyncio.create_task(rig.scorer.score([text("One. Two.")], ["fine"]))
        while not rig.fine.worker.queue.items:
            await asyncio.sleep(0.001)
        with pytest.raises(OverloadedError, match="longer than expected") as caught:
            await rig.scorer.score([text("d")], ["fine"], timeout_s=0.5)
        assert caught.value.retry_after_s is not None
        rig.release.set()
        await asyncio.gather(blocker, waiting)

    asyncio.run(scenario())


def test_an_overloaded_model_answers_whole_or_not_at_all(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    given = [ItemScore((), None), OverloadedError("late", retry_after_s=2.0), MissingFieldError("no question")]

    async def in_part() -> SourceOutcome:
        return SourceOutcome(tuple((result,) for result in given))

    rig.fine.score = lambda *_: in_part()  # type: ignore[method-assign]
    outcome = asyncio.run(rig.scorer.score([text("a"), text("b"), text("c")]))
    assert [codes(model.results) for model in outcome.models] == [
        ["overloaded", "overloaded", "missing_field"],
        ["score", "score", "score"],
    ]
    given.pop()
    with pytest.raises(OverloadedError) as caught:
        asyncio.run(rig.scorer.score([text("a"), text("b")], ["fine"]))
    assert caught.value.retry_after_s == 2.0


def test_a_caller_who_leaves_is_dropped(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()

    async def scenario() -> None:
        rig.release.clear()
        blocker = asyncio.create_task(rig.scorer.score([text("blocks")], ["fine"]))
        await rig.until_busy()
        leaver = asyncio.create_task(rig.scorer.score([text("b"), text("c")], ["fine"]))
        while rig.fine.worker.queue.items < 2:
            await asyncio.sleep(0.001)
        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver
        assert rig.scorer.active_requests == 1
        rig.release.set()
        await blocker
        await rig.scorer.score([text("d")], ["fine"])

    asyncio.run(scenario())
    assert sum(report.items for report in rig.telemetry.reports) == 2


def test_a_caller_whose_event_loop_is_gone_does_not_end_the_worker(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.release.clear()

    async def leave_in_mid_inference() -> None:
        request = asyncio.create_task(rig.scorer.score([text("One.")], ["fine"]))
        await rig.until_busy()
        request.cancel()

    asyncio.run(leave_in_mid_inference())
    rig.release.set()
    outcome = asyncio.run(rig.scorer.score([text("Two.")], ["fine"]))
    assert codes(outcome.models[0].results) == ["score"]
    assert rig.fine.worker.alive


def test_a_full_queue_refuses_for_its_own_model_alone(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(max_queue_items=2)

    async def scenario() -> None:
        rig.release.clear()
        blocker = asyncio.create_task(rig.scorer.score([text("blocks")], ["fine"]))
        await rig.until_busy()
        waiting = asyncio.create_task(rig.scorer.score([text("b"), text("c")], ["fine"]))
        while rig.fine.worker.queue.items < 2:
            await asyncio.sleep(0.001)
        with pytest.raises(OverloadedError) as caught:
            await rig.scorer.score([text("d"), text("e")], ["fine"])
        assert caught.value.retry_after_s is not None
        rig.entered.clear()
        both = asyncio.create_task(rig.scorer.score([text("d")]))
        await rig.until_busy()  # `whole` runs it; `fine` has refused.
        rig.release.set()
        await asyncio.gather(blocker, waiting)
        assert [codes(model.results) for model in (await both).models] == [["overloaded"], ["score"]]

    asyncio.run(scenario())


def test_a_job_over_its_quota_is_refused_whole(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.scorer = Scorer([rig.fine], rig.pool, Quotas(JobPolicies(jobs={"a": JobPolicy(tokens_per_s=0.001)})))
    assert asyncio.run(rig.scorer.score([text("One. Two.")], job="a"))  # Two tokens, of a burst of 0.01.
    with pytest.raises(RateLimitedError) as caught:
        asyncio.run(rig.scorer.score([text("One.")], job="a"))
    assert caught.value.retry_after_s == pytest.approx(1990, abs=5)
    assert asyncio.run(rig.scorer.score([text("One.")], job="b"))


def test_when_all_models_refuse_the_longest_wait_is_told(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()

    async def refuse(retry_after_s: float) -> SourceOutcome:
        return refuse_all(OverloadedError("full", retry_after_s=retry_after_s), 1, 1)

    rig.fine.score = lambda *_: refuse(3.0)  # type: ignore[method-assign]
    rig.whole.score = lambda *_: refuse(7.0)  # type: ignore[method-assign]
    with pytest.raises(OverloadedError) as caught:
        asyncio.run(rig.scorer.score([text("a")]))
    assert caught.value.retry_after_s == 7.0


def test_more_tokens_than_the_queue_ever_holds_are_no_overload(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(max_queue_tokens=2)
    with pytest.raises(PayloadTooLargeError):
        asyncio.run(rig.scorer.score([text("One. Two. Three.")], ["fine"]))


def test_a_deadline_that_cannot_be_met_is_refused_at_once(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()

    async def scenario() -> None:
        rig.release.clear()
        blocker = asyncio.create_task(rig.scorer.score([text("blocks")], ["fine"]))
        await rig.until_busy()
        waiting = asyncio.create_task(rig.scorer.score([text("One. Two. Three.")], ["fine"]))
        while not rig.fine.worker.queue.items:
            await asyncio.sleep(0.001)
        # 10 s a token: the 3 that wait take 30 s, and as many again the one that is asked for, by the average.
        rig.fine.worker.cost.observe(items=1, real_tokens=3, padded_tokens=3, duration_s=30.0)
        with pytest.raises(OverloadedError, match=r"about 78\.0"):  # And 30 % more, to be safe.
            await rig.scorer.score([text("d")], ["fine"], timeout_s=10.0)
        rig.release.set()
        await asyncio.gather(blocker, waiting)

    asyncio.run(scenario())


def test_draining_answers_admitted_requests_and_refuses_new_ones(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()

    async def scenario() -> None:
        rig.release.clear()
        admitted = asyncio.create_task(rig.scorer.score([text("a")], ["fine"]))
        await rig.until_busy()
        rig.scorer.start_draining()
        with pytest.raises(DrainingError):
            await rig.scorer.score([text("b")], ["fine"])
        with pytest.raises(DrainingError):
            await rig.scorer.segment("b", Granularity.SENTENCE)
        assert not await rig.scorer.drained(0.05)
        rig.release.set()
        assert await rig.scorer.drained(TIMEOUT_S)
        assert codes((await admitted).models[0].results) == ["score"]

    asyncio.run(scenario())


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
    worker = Worker("both", FakeBackend(*heads), heads, 0, queue, rig.telemetry)
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
