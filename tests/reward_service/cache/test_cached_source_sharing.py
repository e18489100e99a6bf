"""Requests at a time for the same items: who shares a computation, and who ends it."""

import asyncio
import time
from typing import Any

from reward_service.core.source import SourceOutcome
from reward_service.domain import TextItem
from reward_service.errors import DeadlineExceededError, OverloadedError
from tests.reward_service.cache.cached_items import A, B, C, Make, Run


def test_requests_at_a_time_share_a_computation(make_rig: Make, run: Run, scores_of: Any) -> None:
    rig = make_rig()
    rig.inner.gate.clear()

    async def scenario() -> list[SourceOutcome]:
        first = asyncio.create_task(rig.source.score([A, B], None, "job"))
        await rig.until_asked(1)
        second = asyncio.create_task(rig.source.score([B, C], None, "job"))
        third = asyncio.create_task(rig.source.score([C, A, A], None, "job"))
        await rig.until_asked(2)
        rig.inner.gate.set()
        return list(await asyncio.gather(first, second, third))

    first, second, third = run(scenario())
    assert first.results == (scores_of(A), scores_of(B))
    assert second.results == (scores_of(B), scores_of(C))
    assert third.results == (scores_of(C), scores_of(A), scores_of(A))
    assert rig.inner.asked == [["Aa.", "Bb."], ["Cc."]]
    assert [one.padded_tokens for one in (first, second, third)] == [32, 16, 0]
    assert rig.telemetry.counts == (0, 3, 4)


def test_jobs_do_not_wait_in_each_others_queues(make_rig: Make, run: Run) -> None:
    rig = make_rig()
    rig.inner.gate.clear()

    async def scenario() -> None:
        tasks = [asyncio.create_task(rig.source.score([A], None, job)) for job in ("x", "y", "x")]
        await rig.until_asked(2)
        rig.inner.gate.set()
        await asyncio.gather(*tasks)

    run(scenario())
    assert [job for _, job in rig.inner.calls] == ["x", "y"]


def test_who_leaves_does_not_take_the_computation_from_who_waits(make_rig: Make, run: Run, scores_of: Any) -> None:
    rig = make_rig()
    rig.inner.gate.clear()

    async def scenario() -> SourceOutcome:
        first = asyncio.create_task(rig.source.score([A, B], None))
        await rig.until_asked(1)
        second = asyncio.create_task(rig.source.score([A], None))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert first.cancelled()
        rig.inner.gate.set()
        return await second

    assert run(scenario()).results == (scores_of(A),)
    assert (rig.inner.asked, rig.inner.cancelled) == ([["Aa.", "Bb."]], 0)


def test_what_nobody_waits_for_ends_and_is_computed_anew_for_the_next(make_rig: Make, run: Run, scores_of: Any) -> None:
    rig = make_rig()
    rig.inner.gate.clear()

    async def scenario() -> SourceOutcome:
        tasks = [asyncio.create_task(rig.source.score([A], None)) for _ in range(2)]
        await rig.until_asked(1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        third = asyncio.create_task(rig.source.score([A], None))
        await rig.until_asked(2)
        rig.inner.gate.set()
        return await third

    assert run(scenario()).results == (scores_of(A),)
    assert (rig.inner.asked, rig.inner.cancelled) == ([["Aa."], ["Aa."]], 1)


def test_who_runs_out_of_time_does_not_take_the_computation_from_who_waits_longer(
    make_rig: Make, run: Run, scores_of: Any
) -> None:
    rig = make_rig()
    rig.inner.gate.clear()

    async def scenario() -> tuple[SourceOutcome, SourceOutcome]:
        hasty = asyncio.create_task(rig.source.score([A, B], time.monotonic() + 0.05))
        await rig.until_asked(1)
        patient = asyncio.create_task(rig.source.score([A], None))
        late = await hasty
        await rig.until_asked(2)
        rig.inner.gate.set()
        return late, await patient

    late, patient = run(scenario())
    assert all(isinstance(one, DeadlineExceededError) for results in late.results for one in results)
    assert patient.results == (scores_of(A),)


def test_who_waits_for_another_keeps_an_earlier_deadline(make_rig: Make, run: Run, scores_of: Any) -> None:
    rig = make_rig()
    rig.inner.gate.clear()

    async def scenario() -> tuple[SourceOutcome, SourceOutcome]:
        patient = asyncio.create_task(rig.source.score([A], None))
        await rig.until_asked(1)
        late = await rig.source.score([A], time.monotonic() + 0.02)
        rig.inner.gate.set()
        return late, await patient

    late, patient = run(scenario())
    assert [type(one) for one in late.results[0]] == [DeadlineExceededError] * 2
    assert patient.results == (scores_of(A),)
    assert (len(rig.inner.asked), rig.inner.cancelled) == (1, 0)


def test_a_refusal_is_its_callers_alone_and_a_fault_of_the_item_everybodys(make_rig: Make, run: Run) -> None:
    rig = make_rig()
    rig.inner.gate.clear()
    items = [TextItem("", "full"), TextItem("", "wrong")]

    async def scenario() -> tuple[SourceOutcome, SourceOutcome]:
        first = asyncio.create_task(rig.source.score(items, None))
        await rig.until_asked(1)
        second = asyncio.create_task(rig.source.score(items, None))
        await asyncio.sleep(0)
        rig.inner.gate.set()
        return await first, await second

    first, second = run(scenario())
    assert first.results == second.results
    assert isinstance(second.results[0][0], OverloadedError)
    assert rig.inner.asked == [["full", "wrong"], ["full"]]


def test_what_the_inner_source_raises_is_raised_to_everybody(make_rig: Make, run: Run, scores_of: Any) -> None:
    rig = make_rig()
    rig.inner.error = RuntimeError("broken")
    rig.inner.gate.clear()

    async def scenario() -> list[Any]:
        first = asyncio.create_task(rig.source.score([A], None))
        await rig.until_asked(1)
        second = asyncio.create_task(rig.source.score([A, B], None))
        await rig.until_asked(2)
        rig.inner.gate.set()
        return await asyncio.gather(first, second, return_exceptions=True)

    assert [repr(one) for one in run(scenario())] == ["RuntimeError('broken')"] * 2
    rig.inner.error = None
    assert run(rig.source.score([A], None)).results == (scores_of(A),)
