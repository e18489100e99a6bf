"""Loading and unloading while others are served, over sources that are held by hand."""

import asyncio
import threading

import pytest

from reward_proto.models import ModelState
from reward_service.errors import (
    DrainingError,
    InvalidRequestError,
    ModelFailedError,
    NotInStoreError,
    StoreError,
    UnknownModelError,
)
from reward_service.text_rewards.settings import CallableSettings
from tests.reward_service.held_lineup import TIMEOUT_S, Stage, on_stage, until_closed


def test_requests_at_work_finish_with_the_version_they_began_with() -> None:
    async def act(stage: Stage) -> None:
        old = stage.built[0]
        old.go.clear()
        at_work = asyncio.create_task(stage.score("a"))
        await asyncio.sleep(0)
        stage.store.put("a", "020000000000")
        (served,) = await stage.lineup.load("a", "020000000000")
        assert (served.card.version, served.source.alive) == ("020000000000", True)
        assert await stage.score("a") == [2.0]
        assert not old.closed.is_set()
        old.go.set()
        assert await at_work == [1.0]
        await until_closed(stage, old)
        assert await stage.score("a", "b") == [2.0, 1.0]
        assert list(stage.scorer.models) == ["a", "b"]

    stage = on_stage(act)
    assert stage.built_on[2] is not threading.main_thread()


def test_the_old_version_serves_while_the_new_one_loads() -> None:
    async def act(stage: Stage) -> None:
        stage.store.put("a", "020000000000")
        stage.store.put("c", "030000000000")
        stage.build_may_end.clear()
        stage.build_began.clear()
        loading = asyncio.create_task(stage.lineup.load("a", "latest"))
        second = asyncio.create_task(stage.lineup.load("c", "latest"))
        assert await asyncio.to_thread(stage.build_began.wait, TIMEOUT_S)
        assert await stage.score("a") == [1.0]
        assert stage.lineup.unserved == {}, "a is served all the time, c waits for its turn"
        stage.build_may_end.set()
        await loading
        await second
        assert await stage.score("a", "c") == [2.0, 3.0]

    on_stage(act)


def test_what_loads_for_the_first_time_and_what_failed_is_told() -> None:
    async def act(stage: Stage) -> None:
        stage.store.put("c", "030000000000")
        stage.build_may_end.clear()
        stage.build_began.clear()
        loading = asyncio.create_task(stage.lineup.load("c", "latest"))
        assert await asyncio.to_thread(stage.build_began.wait, TIMEOUT_S)
        ((card, state),) = stage.lineup.unserved.values()
        assert (card.name, card.version, card.runtime, state) == ("c", "030000000000", "auto", ModelState.LOADING)
        stage.fault = StoreError("digest")
        stage.build_may_end.set()
        with pytest.raises(InvalidRequestError, match="digest"):
            await loading
        assert [state for _, state in stage.lineup.unserved.values()] == [ModelState.FAILED]
        stage.fault = None
        await stage.lineup.load("c", "latest")
        assert stage.lineup.unserved == {}

    on_stage(act)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (StoreError("changed"), InvalidRequestError),
        (NotInStoreError("gone meanwhile"), UnknownModelError),
        (ModelFailedError("does not run"), ModelFailedError),
        (MemoryError(), MemoryError),
    ],
)
def test_a_load_that_fails_leaves_the_old_version_serving(fault: Exception, told: type[Exception]) -> None:
    async def act(stage: Stage) -> None:
        stage.store.put("a", "020000000000")
        stage.fault = fault
        with pytest.raises(told):
            await stage.lineup.load("a", "020000000000")
        assert await stage.score("a") == [1.0]
        assert stage.lineup.unserved == {}

    on_stage(act)


@pytest.mark.parametrize(("name", "version"), [("a", "990000000000"), ("a", "best"), ("nobody", "latest")])
def test_what_the_store_lacks_is_unknown(name: str, version: str) -> None:
    async def act(stage: Stage) -> None:
        with pytest.raises(UnknownModelError):
            await stage.lineup.load(name, version)

    on_stage(act)


def test_what_is_served_as_wanted_is_not_loaded_again_unless_its_worker_ended() -> None:
    async def act(stage: Stage) -> None:
        await stage.lineup.load("a", "010000000000")
        assert len(stage.built) == 2
        stage.built[0].alive = False
        await stage.lineup.load("a", "010000000000")
        assert len(stage.built) == 3
        assert stage.scorer.models["a"].source is stage.built[2]

    on_stage(act)


def test_unloading_tells_its_state_and_takes_its_metrics_away() -> None:
    async def act(stage: Stage) -> None:
        stage.metrics.encoded("a", 0.1, 1)
        assert (stage.info("a", "010000000000"), stage.queue("a")) == (1, 0)
        (card,) = await stage.lineup.unload("a")
        assert card.version == "010000000000"
        with pytest.raises(UnknownModelError):
            await stage.score("a")
        with pytest.raises(UnknownModelError):
            await stage.lineup.unload("a")
        assert [(card.name, state) for card, state in stage.lineup.unserved.values()] == [("a", ModelState.UNLOADED)]
        await until_closed(stage, stage.built[0])
        assert (stage.info("a", "010000000000"), stage.queue("a")) == (None, None)
        assert stage.metrics.registry.get_sample_value("reward_truncated_total", {"model": "a"}) is None
        assert (stage.info("b", "010000000000"), stage.queue("b")) == (1, 0)
        await stage.lineup.load("a", "latest")
        assert stage.wanted[-1].runtime == "torch", "its entry is remembered"
        assert stage.info("a", "010000000000") == 1
        assert await stage.score("b", "a") == [1.0, 1.0]

    on_stage(act)


def test_another_version_counts_on() -> None:
    async def act(stage: Stage) -> None:
        stage.metrics.encoded("a", 0.1, 1)
        stage.store.put("a", "020000000000")
        await stage.lineup.load("a", "latest")
        await until_closed(stage, stage.built[0])
        assert (stage.info("a", "010000000000"), stage.info("a", "020000000000"), stage.queue("a")) == (None, 1, 0)
        assert stage.metrics.registry.get_sample_value("reward_truncated_total", {"model": "a"}) == 1

    on_stage(act)


def test_a_model_with_a_weight_is_not_unloaded() -> None:
    async def act(stage: Stage) -> None:
        with pytest.raises(InvalidRequestError, match=r"compat\.weights: a"):
            await stage.lineup.unload("a")
        assert await stage.score("a") == [1.0]

    on_stage(act, weights=["a"])


def test_nothing_is_changed_while_draining() -> None:
    async def act(stage: Stage) -> None:
        stage.store.put("a", "020000000000")
        stage.build_may_end.clear()
        stage.build_began.clear()
        loading = asyncio.create_task(stage.lineup.load("a", "latest"))
        assert await asyncio.to_thread(stage.build_began.wait, TIMEOUT_S)
        stage.scorer.start_draining()
        stage.build_may_end.set()
        with pytest.raises(DrainingError):
            await loading
        assert stage.built[2].closed.is_set()
        with pytest.raises(DrainingError):
            await stage.lineup.unload("a")

    on_stage(act)


def test_a_reward_without_versions_is_not_loaded_by_version() -> None:
    async def act(stage: Stage) -> None:
        wanted = CallableSettings(source="callable", name="length", function="json:dumps", kind="regression")
        stage.lineup._known["length"] = wanted
        with pytest.raises(InvalidRequestError, match="source callable"):
            await stage.lineup.load("length", "latest")

    on_stage(act)
