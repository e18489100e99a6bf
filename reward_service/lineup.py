"""What is served, and how it changes while requests run.

A new version is loaded and warmed beside the one that serves, on a thread of its own; then they change places at once
for every request that comes; the old one ends when the last request that asks it has its answer. A load that fails
changes nothing.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from reward_proto.models import ModelState
from reward_service.config import AnyModelSettings, ModelSettings
from reward_service.core.scorer import DRAIN_RETRY_AFTER_S, Scorer, ServedModel
from reward_service.core.source import ScoreSource
from reward_service.domain import ModelCard
from reward_service.errors import (
    ConfigError,
    DrainingError,
    InvalidRequestError,
    NotInStoreError,
    StoreError,
    UnknownModelError,
)
from reward_service.registry.cards import make_cards
from reward_service.registry.store import Store

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 30.0
"""How long the worker of a model that was exchanged may take for its last batch."""

R = TypeVar("R")


class Watcher(Protocol):
    """Is told what is served: `web.metrics`."""

    def watch(self, source: ScoreSource) -> None:
        """A source is served from now on."""
        ...

    def forget(self, source: ScoreSource, served: Sequence[ScoreSource]) -> None:
        """A source has ended; `served` are those that are served."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the settings' `models`, and what serves it."""

    wanted: AnyModelSettings
    source: ScoreSource


class Lineup:
    """Loads and unloads models while others are asked. Its coroutines belong to the scorer's event loop.

    Args:
        scorer: What it changes.
        entries: What the scorer serves, started.
        store: Where versions are found.
        build: Loads and warms what an entry describes; called on a thread of its own.
        check: Is asked before a change whether these may be served together; raises `ConfigError`.
        watcher: Is told of each change.
    """

    def __init__(
        self,
        scorer: Scorer,
        entries: Sequence[Entry],
        store: Store,
        build: Callable[[AnyModelSettings], ScoreSource],
        check: Callable[[Sequence[ScoreSource]], None],
        watcher: Watcher,
    ) -> None:
        self._scorer = scorer
        self._entries = {entry.source.name: entry for entry in entries}
        self._store = store
        self._build = build
        self._check = check
        self._watcher = watcher
        self._known = {name: entry.wanted for name, entry in self._entries.items()}
        self._unserved: dict[str, tuple[ModelCard, ModelState]] = {}
        self._lock = asyncio.Lock()  # One change at a time.
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def unserved(self) -> Mapping[str, tuple[ModelCard, ModelState]]:
        """By name, models that are no longer or not yet served: unloaded, loading for the first time, or failed."""
        return {name: told for name, told in self._unserved.items() if name not in self._scorer.models}

    async def load(self, name: str, version: str) -> list[ServedModel]:
        """Serve a version of a model of the store, in the place of another version if one is served.

        It is computed as its entry in the settings says, or said before it was unloaded; a model that never had an
        entry as the defaults of one say. What is served as it is wanted stays as it is.

        Args:
            name: The model's in the store.
            version: Its version, or an alias.

        Returns:
            Its models: several for a network, which is loaded whole under its own name.

        Raises:
            UnknownModelError: The store has no such model, alias or version.
            InvalidRequestError: The version is refused, its runtime cannot be used, it is no model of the store, or its
                names and what is served do not go together.
            ModelFailedError: It does not run.
            DrainingError: Shutting down.
        """
        async with self._lock:
            entry = self._entry_of(name)
            wanted = self._known.get(name) or ModelSettings(name=name)
            if not isinstance(wanted, ModelSettings):
                raise InvalidRequestError(f"{name!r} is a reward of source {wanted.source}, which has no versions")
            wanted = wanted.model_copy(update={"name": f"{name}@{version}"})
            try:
                if not await self._is_current(wanted, entry):
                    await self._exchange({name: wanted})
            except NotInStoreError as error:
                raise UnknownModelError(str(error), model=name, version=version) from error
            except (StoreError, ConfigError) as error:
                raise InvalidRequestError(str(error), model=name, version=version) from error
            return [self._scorer.models[card.name] for card in self._entries[name].source.cards]

    async def unload(self, name: str) -> list[ModelCard]:
        """Serve a model no longer; a network goes whole.

        Raises:
            UnknownModelError: It is not served.
            InvalidRequestError: It is one of several of a network, or the settings give it a weight.
        """
        async with self._lock:
            entry = self._entry_of(name)
            if entry is None:
                raise UnknownModelError(f"model {name!r} is not served", model=name, served=list(self._entries))
            try:
                await self._exchange({}, gone=[name])
            except ConfigError as error:
                raise InvalidRequestError(str(error), model=name) from error
            return list(entry.source.cards)

    async def follow(self, models: Sequence[AnyModelSettings]) -> None:
        """Serve what the settings say now, all of it or, if anything fails, what was served before.

        Raises:
            ConfigError: Names are served twice, or what an entry names is not there.
            StoreError: A model is missing, changed or refused, or its runtime cannot be used.
            ServiceError: A model does not run, or the service is shutting down.
        """
        async with self._lock:
            wanted = {model.served_name: model for model in models}
            changed = {}
            for name, model in wanted.items():
                if not await self._is_current(model, self._entries.get(name)):
                    changed[name] = model
            gone = [name for name in self._entries if name not in wanted]
            if changed or gone:
                await self._exchange(changed, gone)

    def _entry_of(self, name: str) -> Entry | None:
        entry = self._entries.get(name)
        served = self._scorer.models.get(name)
        if entry is None and served is not None:
            owner = served.source.name
            raise InvalidRequestError(f"{name!r} is a part of {owner!r}, which goes as a whole", model=owner)
        return entry

    async def _is_current(self, wanted: AnyModelSettings, entry: Entry | None) -> bool:
        if entry is None or not entry.source.alive:
            return False
        if not isinstance(wanted, ModelSettings) or not isinstance(entry.wanted, ModelSettings):
            return wanted == entry.wanted
        if wanted.model_copy(update={"name": entry.wanted.name}) != entry.wanted:
            return False
        published = await _on_a_thread(lambda: self._store.find(wanted.name))
        card = entry.source.cards[0]
        return (card.version, card.aliases) == (published.version, published.aliases)

    async def _exchange(self, wanted: Mapping[str, AnyModelSettings], gone: Sequence[str] = ()) -> None:
        """Load what is wanted, then change all of it at once."""
        if self._scorer.draining:
            raise DrainingError("the service is shutting down", retry_after_s=DRAIN_RETRY_AFTER_S)
        made: dict[str, Entry] = {}
        try:
            for name, model in wanted.items():
                made[name] = Entry(model, await self._load(name, model))
            entries = {name: entry for name, entry in self._entries.items() if name not in gone} | made
            sources = [entry.source for entry in entries.values()]
            self._check(sources)
            if self._scorer.draining:
                raise DrainingError("the service is shutting down", retry_after_s=DRAIN_RETRY_AFTER_S)
        except BaseException:
            loading = [name for name, (_, state) in self._unserved.items() if state is ModelState.LOADING]
            self._unserved.update((name, (self._unserved[name][0], ModelState.FAILED)) for name in loading)
            for entry in made.values():
                await asyncio.to_thread(entry.source.close, CLOSE_TIMEOUT_S)
            raise
        for entry in made.values():
            entry.source.start()
        self._entries = entries
        self._known.update(wanted)
        replaced = self._scorer.serve(sources)
        for entry in made.values():
            self._watcher.watch(entry.source)
        for source in replaced:
            self._unserved.update((card.name, (card, ModelState.UNLOADED)) for card in source.cards)
            task = asyncio.create_task(self._retire(source))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        logger.info("serving %s", ", ".join(f"{c.name}@{c.version}" for source in sources for c in source.cards))

    async def _load(self, name: str, model: AnyModelSettings) -> ScoreSource:
        cards: Sequence[ModelCard] = ()
        if isinstance(model, ModelSettings):
            cards = make_cards(await _on_a_thread(lambda: self._store.find(model.name)), str(model.runtime))
        self._unserved.update((card.name, (card, ModelState.LOADING)) for card in cards)
        try:
            return await _on_a_thread(lambda: self._build(model))
        except Exception as error:
            logger.error("%s was not loaded: %s", model.name, error)
            raise

    async def _retire(self, source: ScoreSource) -> None:
        await self._scorer.retire(source, CLOSE_TIMEOUT_S)
        self._watcher.forget(source, self._scorer.sources)
        logger.info("ended %s", ", ".join(f"{card.name}@{card.version}" for card in source.cards))


async def _on_a_thread(work: Callable[[], R]) -> R:
    """Run slow work on a thread that the end of the process does not wait for, as it does for a pool's."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[R] = loop.create_future()

    def settle(result: R | None, error: BaseException | None) -> None:
        if done.done():  # Nobody waits any more.
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # Without an error it is what `work` gave.

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - handed to the one who waits
            failure = error
        with suppress(RuntimeError):  # The loop has closed: the process ends.
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="load", daemon=True).start()
    return await done
