"""A lineup over sources that are held by hand; the real process is in `test_operations_process.py`."""

import asyncio
import hashlib
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.config import AnyModelSettings, ModelSettings, Runtime
from reward_service.core.scorer import Scorer
from reward_service.core.segment import SEGMENTER_VERSION
from reward_service.core.source import ScoreSource, SourceOutcome
from reward_service.domain import ItemScore, ModelCard, TextItem
from reward_service.errors import NotInStoreError
from reward_service.lineup import Entry, Lineup
from reward_service.registry.cards import make_cards
from reward_service.registry.manifest import Manifest, SegmenterSpec
from reward_service.registry.store import Published
from reward_service.serve import check_names
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
