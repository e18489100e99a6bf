"""What waits for a reward that is not an encoder: its turn, its deadline, its end."""

import asyncio
import threading
from collections.abc import Callable

from reward_service.errors import DeadlineExceededError, ModelFailedError, OverloadedError, PayloadTooLargeError
from tests.reward_service.core.text_source_rig import TIMEOUT_S, Rig, codes, only


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


def test_a_caller_that_leaves_before_its_calls_begin_frees_their_places(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    segmented, has_left = threading.Event(), threading.Event()

    def encoded(model: str, tokenize_s: float, truncated: int) -> None:
        # On the source's own thread, in the step that begins the calls.
        segmented.set()
        assert has_left.wait(TIMEOUT_S)

    rig.telemetry.encoded = encoded  # type: ignore[method-assign]

    async def scenario() -> None:
        call = asyncio.ensure_future(rig.score("One.", "Two."))
        await rig.until(segmented.is_set)
        call.cancel()
        await asyncio.wait([call])  # The source's loop was told before.
        has_left.set()
        await rig.score("Three.")

    asyncio.run(scenario())
    assert rig.reward.calls == [["Three."]]
    assert rig.source.queue_items == 0


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
