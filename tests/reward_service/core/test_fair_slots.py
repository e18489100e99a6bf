import asyncio
from collections.abc import Awaitable, Callable

import pytest

from reward_service.core.fair_share import JobPolicies, JobPolicy
from reward_service.core.fair_slots import FairSlots


async def order_of(slots: FairSlots, calls: list[tuple[str, int]]) -> list[str]:
    """The jobs in the order in which their calls had the one slot, which is taken when they all come."""
    order: list[str] = []
    release = asyncio.Event()

    async def call(job: str, items: int, until: Callable[[], Awaitable[object]]) -> None:
        async with slots.slot(job, items):
            order.append(job)
            await until()

    first = asyncio.create_task(call("first", 1, release.wait))
    await asyncio.sleep(0)
    others = [asyncio.create_task(call(job, items, lambda: asyncio.sleep(0))) for job, items in calls]
    await asyncio.sleep(0)
    release.set()
    await asyncio.gather(first, *others)
    return order[1:]


def test_jobs_take_turns_whoever_came_first() -> None:
    calls = [("flood", 1)] * 4 + [("light", 1)] * 2
    assert asyncio.run(order_of(FairSlots(1, JobPolicies()), calls)) == [
        "flood",
        "light",
        "flood",
        "light",
        "flood",
        "flood",
    ]


def test_a_call_of_many_items_counts_for_many() -> None:
    calls = [("a", 3)] * 2 + [("b", 1)] * 4
    assert asyncio.run(order_of(FairSlots(1, JobPolicies()), calls)) == ["a", "b", "b", "b", "a", "b"]


def test_weights_and_priorities_count() -> None:
    policies = JobPolicies(jobs={"heavy": JobPolicy(weight=2.0), "urgent": JobPolicy(priority=1)})
    calls = [("heavy", 2)] * 4 + [("light", 2)] * 2 + [("urgent", 2)]
    found = asyncio.run(order_of(FairSlots(1, policies), calls))
    assert found == ["urgent", "heavy", "light", "heavy", "heavy", "light", "heavy"]


def test_so_many_at_a_time() -> None:
    async def scenario() -> int:
        slots = FairSlots(2, JobPolicies())
        under_way = most = 0

        async def call() -> None:
            nonlocal under_way, most
            async with slots.slot("a", 1):
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(0)
                under_way -= 1

        await asyncio.gather(*(call() for _ in range(7)))
        return most

    assert asyncio.run(scenario()) == 2


@pytest.mark.parametrize("handed", [False, True])
def test_a_slot_is_not_lost_with_a_caller_that_leaves(handed: bool) -> None:
    async def scenario() -> None:
        slots = FairSlots(1, JobPolicies())
        release = asyncio.Event()

        async def first_call() -> None:
            async with slots.slot("a", 1):
                await release.wait()
            if handed:  # The slot is handed on, and before the other one runs it is cancelled.
                leaving.cancel()

        async def other_call() -> None:
            async with slots.slot("a", 1):
                pass

        first = asyncio.create_task(first_call())
        await asyncio.sleep(0)
        leaving = asyncio.create_task(other_call())
        await asyncio.sleep(0)
        if not handed:
            leaving.cancel()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await first
        async with asyncio.timeout(10), slots.slot("b", 1):
            pass

    asyncio.run(scenario())
