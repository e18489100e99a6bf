import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from reward_service.cache.in_flight import InFlight, Work, follow
from reward_service.core.source import SourceOutcome
from reward_service.domain import ItemScore, TextItem
from reward_service.errors import DeadlineExceededError, ModelFailedError, OverloadedError

Run = Callable[[Any], Any]
A, B = b"a", b"b"
ITEMS = {A: TextItem("", "a"), B: TextItem("", "b")}
SCORE = ItemScore((), 0.5)


class Compute:
    """Gives its results once `gate` is open."""

    def __init__(self, *results: Any) -> None:
        self.results = results
        self.gate = asyncio.Event()
        self.ended = 0

    async def __call__(self, work: Work) -> SourceOutcome:
        try:
            await self.gate.wait()
            return SourceOutcome(tuple((result,) for result in self.results))
        finally:
            self.ended += 1


def test_work_is_found_by_job_and_key_until_it_is_done(run: Run) -> None:
    async def scenario() -> None:
        compute = Compute(SCORE, SCORE)
        in_flight = InFlight(compute)
        work = in_flight.begin("job", ITEMS, None)
        work.waiters = 1
        assert in_flight.find("job", B) is work
        assert in_flight.find("other", B) is None
        assert in_flight.find("job", b"c") is None
        compute.gate.set()
        await work.task
        assert in_flight.find("job", B) is None
        assert await follow({A: work}, 1, None) == {A: (SCORE,)}
        in_flight.leave([work])

    run(scenario())


@pytest.mark.parametrize(
    ("result", "shared"),
    [
        (SCORE, True),
        (ModelFailedError("x"), True),
        (OverloadedError("x"), False),
        (DeadlineExceededError("x"), False),
    ],
)
def test_what_befell_one_caller_is_not_told_to_another(run: Run, result: Any, shared: bool) -> None:
    async def scenario() -> Any:
        compute = Compute(result, SCORE)
        compute.gate.set()
        work = InFlight(compute).begin("", ITEMS, None)
        return await follow({A: work, B: work}, 1, None)

    assert run(scenario()) == {A: (result,) if shared else None, B: (SCORE,)}


def test_the_last_who_leaves_ends_the_work(run: Run) -> None:
    async def scenario() -> None:
        compute = Compute()
        in_flight = InFlight(compute)
        work = in_flight.begin("", ITEMS, None)
        work.waiters = 2
        await asyncio.sleep(0)
        in_flight.leave([work])
        assert in_flight.find("", A) is work
        in_flight.leave([work])
        assert in_flight.find("", A) is None, "who comes now does not wait for what is ending"
        assert await follow({A: work}, 1, None) == {A: None}
        assert compute.ended == 1

    run(scenario())


def test_who_follows_waits_no_longer_than_its_deadline(run: Run) -> None:
    async def scenario() -> Any:
        work = InFlight(Compute()).begin("", ITEMS, None)
        found = await follow({A: work}, 2, time.monotonic() + 0.01)
        work.task.cancel()
        return found

    found = run(scenario())
    assert [type(one) for one in found[A]] == [DeadlineExceededError] * 2


def test_an_early_answer_need_not_wait_for_the_rest(run: Run) -> None:
    async def scenario() -> Any:
        work = InFlight(Compute()).begin("", ITEMS, None)
        work.answer(A, (SCORE,))
        found = await follow({A: work}, 1, None)
        work.task.cancel()
        return found

    assert run(scenario()) == {A: (SCORE,)}
