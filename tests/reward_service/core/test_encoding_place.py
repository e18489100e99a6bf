"""Where the items of a request are encoded: on an idle worker's own thread, or on the pool."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from reward_service.core.encoder_source import SHORT_CHARS
from reward_service.domain import Encoded, Span, TextItem
from tests.reward_service.core.scorer_rig import Rig, codes, text

Until = Callable[[Callable[[], bool]], None]


class Watched:
    """An encoder that tells on which threads it ran, and fails where it is told to."""

    def __init__(self, rig: Rig) -> None:
        self.inner = rig.fine._encoder
        self.threads: list[str] = []
        rig.fine._encoder = self

    def encode(self, item: TextItem, spans: Sequence[tuple[Span, ...]]) -> Encoded:
        self.threads.append(threading.current_thread().name.rpartition("-")[0])
        if item.response == "fails.":
            raise RuntimeError("a fault of the encoder")
        return self.inner.encode(item, spans)


def idle(rig: Rig, until: Until) -> None:
    until(lambda: rig.fine.worker.queue._takers.free() is not None)


def test_an_idle_worker_encodes_what_is_short(make_rig: Callable[..., Rig], until: Until) -> None:
    rig = make_rig()
    watched = Watched(rig)
    for response in ("a.", "b" * SHORT_CHARS, "c" * (SHORT_CHARS - 1)):  # The question has one character.
        idle(rig, until)
        outcome = asyncio.run(rig.scorer.score([text(response)], ["fine"]))
        assert codes(outcome.models[0].results) == ["score"]
    assert watched.threads[0] == watched.threads[2] == "worker-fine"
    assert watched.threads[1].startswith("ThreadPoolExecutor")


def test_a_busy_worker_is_not_asked_to_encode(make_rig: Callable[..., Rig], until: Until) -> None:
    rig = make_rig()
    watched = Watched(rig)

    async def ask() -> list[list[str]]:
        idle(rig, until)
        rig.release.clear()
        first = asyncio.create_task(rig.scorer.score([text("a.")], ["fine"]))
        await rig.until_busy()
        second = asyncio.create_task(rig.scorer.score([text("b.")], ["fine"]))
        await asyncio.to_thread(until, lambda: len(watched.threads) == 2)
        rig.release.set()
        return [codes(outcome.models[0].results) for outcome in await asyncio.gather(first, second)]

    assert asyncio.run(ask()) == [["score"], ["score"]]
    assert watched.threads[0] == "worker-fine"
    assert watched.threads[1].startswith("ThreadPoolExecutor")


def test_a_fault_of_the_encoder_is_its_callers_alone(make_rig: Callable[..., Rig], until: Until) -> None:
    rig = make_rig()
    watched = Watched(rig)
    for _ in range(3):
        idle(rig, until)
        with pytest.raises(RuntimeError, match="a fault of the encoder"):
            asyncio.run(rig.scorer.score([text("fails.")], ["fine"]))
        idle(rig, until)
        assert codes(asyncio.run(rig.scorer.score([text("a.")], ["fine"])).models[0].results) == ["score"]
    assert set(watched.threads) == {"worker-fine"}
    assert rig.fine.alive
    assert rig.fine.queue_items == 0
