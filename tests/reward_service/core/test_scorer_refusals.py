"""What the scorer refuses or drops: late, overloaded, over a quota, draining, left by its caller."""

import asyncio
from collections.abc import Callable

import pytest

from reward_proto.score import Granularity
from reward_service.core.fair_share import JobPolicies, JobPolicy
from reward_service.core.quotas import Quotas
from reward_service.core.scorer import Scorer
from reward_service.core.source import SourceOutcome, refuse_all
from reward_service.domain import ItemScore
from reward_service.errors import (
    DeadlineExceededError,
    DrainingError,
    MissingFieldError,
    OverloadedError,
    PayloadTooLargeError,
    RateLimitedError,
)
from tests.reward_service.core.scorer_rig import TIMEOUT_S, Rig, codes, text


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
