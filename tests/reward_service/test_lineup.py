"""Changes of what is served, over sources that are held by hand; the real process is in `test_hot_load_process.py`."""

import asyncio
import hashlib
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from reward_proto.models import ModelKind, ModelState
from reward_proto.score import Granularity
from reward_service.config import AnyModelSettings, ModelSettings, Runtime
from reward_service.core.scorer import Scorer
from reward_service.core.segment import SEGMENTER_VERSION
from reward_service.core.source import ScoreSource, SourceOutcome
from reward_service.domain import ItemScore, ModelCard, TextItem
from reward_service.errors import (
    ConfigError,
    DrainingError,
    InvalidRequestError,
    ModelFailedError,
    NotInStoreError,
    StoreError,
    UnknownModelError,
)
from reward_service.lineup import Entry, Lineup
from reward_service.registry.cards import make_cards
from reward_service.registry.manifest import Manifest, SegmenterSpec
from reward_service.registry.store import Published
from reward_service.serve import check_names
from reward_service.text_rewards.settings import CallableSettings
from reward_service.web.metrics import Metrics

TIMEOUT_S = 20.0
ITEM = TextItem("p", "Yes.")


class HeldSource:
    """Gives its version's number as every score, when it is let."""

    def __init__(self, cards: Sequence[ModelCard], name: str) -> None:
        self.cards = tuple(cards)
        self.name = name
        self.alive = True
        self.queue_items = self.queue_tokens = 0
        self.estimated_wait_s = 0.0
        self.go = asyncio.Event()
        self.go.set()
        self.started = False
        self.closed = threading.Event()

    def start(self) -> None:
        self.started = True

    def close(self, timeout_s: float) -> None:
        self.alive = False
        self.closed.set()

    async def score(self, items: Sequence[TextItem], deadline_s: float | None, job: str = "") -> SourceOutcome:
        assert self.started
        await self.go.wait()
        assert not self.closed.is_set(), "a source was closed under a request"
        value = float(self.cards[0].version[:2])
        return SourceOutcome(((ItemScore((), value),) * len(self.cards),) * len(items))


def digest_of(version: str) -> str:
    return version + hashlib.sha256(version.encode()).hexdigest()[12:]


class Shelf:
    """In place of the store: versions by reference."""

    def __init__(self) -> None:
        self.aliases: dict[str, dict[str, str]] = {}

    def put(self, name: str, version: str, *aliases: str) -> None:
        self.aliases.setdefault(name, {}).update(dict.fromkeys(["latest", version, *aliases], version))

    def find(self, reference: str) -> Published:
        name, _, which = reference.partition("@")
        try:
            version = self.aliases[name][which or "latest"]
        except KeyError:
            raise NotInStoreError(f"{reference}: no such version") from None
        manifest = Manifest(
            name=name,
            kind=ModelKind.SEQUENCE_REGRESSION,
            granularity=Granularity.SEQUENCE,
            template="{prompt}",
            max_tokens=64,
            segmenter=SegmenterSpec(version=SEGMENTER_VERSION),
        )
        aliases = tuple(a for a, v in self.aliases[name].items() if v == version and a != version)
        return Published(name, version, digest_of(version), aliases, manifest, Path("nowhere"))


class Stage:
    """A lineup of `a` and `b`, each in its version 1."""

    def __init__(self, weights: Sequence[str] = ()) -> None:
        self.store = Shelf()
        for name in ("a", "b"):
            self.store.put(name, "010000000000")
        self.metrics = Metrics(CollectorRegistry(), 4)
        self.built: list[HeldSource] = []
        self.fault: Exception | None = None
        self.build_may_end = threading.Event()
        self.build_may_end.set()
        self.build_began = threading.Event()
        self.wanted: list[Any] = []
        self.built_on: list[threading.Thread] = []
        wanted = [ModelSettings(name=name, runtime=Runtime.TORCH) for name in ("a", "b")]
        entries = [Entry(model, self.build(model)) for model in wanted]
        for entry in entries:
            entry.source.start()
            self.metrics.watch(entry.source)
        self.scorer = Scorer([entry.source for entry in entries], ThreadPoolExecutor(1))
        self.lineup = Lineup(
            self.scorer,
            entries,
            self.store,  # type: ignore[arg-type]
            self.build,
            lambda sources: check_names(sources, weights),
            self.metrics,
        )

    def build(self, wanted: AnyModelSettings) -> ScoreSource:
        self.wanted.append(wanted)
        self.built_on.append(threading.current_thread())
        self.build_began.set()
        assert self.build_may_end.wait(TIMEOUT_S)
        if self.fault is not None:
            raise self.fault
        published = self.store.find(wanted.name)
        self.built.append(HeldSource(make_cards(published, "held-fp32"), published.name))
        return self.built[-1]

    async def score(self, *models: str) -> list[float | None]:
        outcome = await self.scorer.score([ITEM], models)
        return [model.results[0].sequence_score for model in outcome.models if isinstance(model.results[0], ItemScore)]

    def info(self, name: str, version: str) -> float | None:
        labels = {"model": name, "version": version, "runtime": "held-fp32"}
        return self.metrics.registry.get_sample_value("reward_model_info", labels)

    def queue(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value("reward_queue_items", {"model": name})


def on_stage(act: Callable[[Stage], Awaitable[Any]], **options: Any) -> Stage:
    made: list[Stage] = []

    async def run() -> None:
        made.append(Stage(**options))
        await act(made[0])

    asyncio.run(run())
    return made[0]


async def until_closed(stage: Stage, source: HeldSource) -> None:
    await asyncio.gather(*stage.lineup._tasks)
    assert source.closed.is_set()


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


def test_following_the_settings_loads_moves_and_unloads_at_once() -> None:
    async def act(stage: Stage) -> None:
        stage.store.put("b", "020000000000", "best")
        stage.store.put("c", "030000000000")
        await stage.lineup.follow([ModelSettings(name="b@best", runtime=Runtime.TORCH), ModelSettings(name="c")])
        assert list(stage.scorer.models) == ["b", "c"]
        assert await stage.score("b", "c") == [2.0, 3.0]
        built = len(stage.built)
        await stage.lineup.follow(
            [ModelSettings(name="b@020000000000", runtime=Runtime.TORCH), ModelSettings(name="c")]
        )
        assert len(stage.built) == built, "nothing has changed but how the version is named"
        stage.store.put("b", "040000000000", "best")
        await stage.lineup.follow([ModelSettings(name="b@best", runtime=Runtime.TORCH), ModelSettings(name="c")])
        assert await stage.score("b", "c") == [4.0, 3.0]
        assert len(stage.built) == built + 1

    on_stage(act)


def test_following_faulty_settings_changes_nothing() -> None:
    async def act(stage: Stage) -> None:
        stage.store.put("a", "020000000000")
        with pytest.raises(NotInStoreError):
            await stage.lineup.follow([ModelSettings(name="a", runtime=Runtime.TORCH), ModelSettings(name="nobody")])
        assert stage.built[2].closed.is_set(), "what was loaded in vain is ended"
        assert await stage.score("a", "b") == [1.0, 1.0]

    on_stage(act)


def test_a_reward_without_versions_is_not_loaded_by_version() -> None:
    async def act(stage: Stage) -> None:
        wanted = CallableSettings(source="callable", name="length", function="json:dumps", kind="regression")
        stage.lineup._known["length"] = wanted
        with pytest.raises(InvalidRequestError, match="source callable"):
            await stage.lineup.load("length", "latest")

    on_stage(act)


def test_names_must_stay_unique() -> None:
    async def act(stage: Stage) -> None:
        stage.store.put("c", "030000000000")
        build = stage.build

        def of_two_heads(wanted: AnyModelSettings) -> ScoreSource:
            source = build(wanted)
            assert isinstance(source, HeldSource)
            card = source.cards[0]
            other = make_cards(stage.store.find("b"), "held-fp32")[0]
            source.cards = (card, other)
            return source

        stage.lineup._build = of_two_heads
        with pytest.raises(InvalidRequestError, match="b is served twice"):
            await stage.lineup.load("c", "latest")
        await stage.lineup.follow([ModelSettings(name="a", runtime=Runtime.TORCH), ModelSettings(name="c")])
        assert list(stage.scorer.models) == ["a", "c", "b"]
        with pytest.raises(InvalidRequestError, match="a part of 'c'"):
            await stage.lineup.unload("b")
        with pytest.raises(ConfigError):
            await stage.lineup.follow([ModelSettings(name="b", runtime=Runtime.TORCH), ModelSettings(name="c")])

    on_stage(act)
