"""The request path: check, choose models, ask what gives their scores, put together. The only coordinator.

Models whose scores come from one computation are computed once a request, however many of them it names.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from reward_proto.score import Granularity
from reward_service.core.quotas import Quotas
from reward_service.core.segment import check_spans, segment_text
from reward_service.core.source import ScoreSource, SourceOutcome
from reward_service.core.stages import Stage, recorded_stages
from reward_service.domain import ItemScore, ModelCard, ModelOutcome, Outcome, TextItem
from reward_service.errors import DrainingError, InvalidRequestError, OverloadedError, ServiceError, UnknownModelError

DRAIN_POLL_S = 0.02
"""How often draining looks whether the last request has left."""

DRAIN_RETRY_AFTER_S = 1.0
"""When a refused caller may try again; by then another instance, or the next one, answers."""

REPLY_SHARE, MAX_REPLY_S = 0.05, 0.1
"""Of a caller's time, and at most, what is left for the reply to be written and to arrive."""

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A name that requests may use, and what gives its scores."""

    card: ModelCard
    source: ScoreSource


class Scorer:
    """Scores responses with the loaded models. Its coroutines belong to one event loop.

    Args:
        sources: What gives scores, started; the names of all their models are unique.
        pool: Segments texts and checks callers' spans. The scorer ends it.
        quotas: What each job may ask for; no bounds if None.
    """

    def __init__(self, sources: Sequence[ScoreSource], pool: ThreadPoolExecutor, quotas: Quotas | None = None) -> None:
        self._pool = pool
        self._quotas = quotas or Quotas()
        self._at_work: Counter[int] = Counter()  # Requests by the id of each source that they ask.
        self._retiring: list[ScoreSource] = []
        self._sources: tuple[ScoreSource, ...] = ()
        self._models: dict[str, ServedModel] = {}
        self.serve(sources)
        self._active = 0
        self._draining = False

    @property
    def sources(self) -> Sequence[ScoreSource]:
        """What gives scores."""
        return self._sources

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """The loaded models by name."""
        return self._models

    @property
    def draining(self) -> bool:
        """Whether new requests are refused."""
        return self._draining

    @property
    def active_requests(self) -> int:
        """Requests that were admitted and are not yet answered."""
        return self._active

    def serve(self, sources: Sequence[ScoreSource]) -> list[ScoreSource]:
        """Serve these from the next request on, all at once; requests at work go on with what they began with.

        Args:
            sources: Started; the names of all their models are unique.

        Returns:
            Those that are served no longer: to be retired.
        """
        gone = [source for source in self._sources if source not in sources]
        self._sources = tuple(sources)
        self._models = {card.name: ServedModel(card, source) for source in sources for card in source.cards}
        self._retiring += gone
        return gone

    async def retire(self, source: ScoreSource, timeout_s: float) -> None:
        """End a source that is served no longer, once no request asks it.

        Args:
            source: What `serve` returned.
            timeout_s: For its worker to end.
        """
        while self._at_work[id(source)]:
            await asyncio.sleep(DRAIN_POLL_S)
        del self._at_work[id(source)]
        self._retiring.remove(source)
        await asyncio.to_thread(source.close, timeout_s)

    def find(self, reference: str) -> ServedModel:
        """The model that `name`, `name@alias` or `name@version` means.

        Raises:
            UnknownModelError: It is not served.
        """
        name, at, wanted = reference.partition("@")
        model = self._models.get(name)
        if model is None or (at and wanted not in (model.card.version, model.card.digest, *model.card.aliases)):
            raise UnknownModelError(f"model {reference!r} is not served", model=reference, served=list(self._models))
        return model

    async def score(
        self,
        items: Sequence[TextItem],
        references: Sequence[str] | None = None,
        timeout_s: float | None = None,
        job: str = "",
    ) -> Outcome:
        """Score every item with every model.

        Args:
            items: At least one.
            references: `name`, `name@alias` or `name@version`; a model named twice runs once. All loaded ones if None.
            timeout_s: Scores that are not there by then are `DeadlineExceededError` in their places; where the model
                was busy with others, `OverloadedError` in the places of all its scores.
            job: The training job that asks; empty for callers that name none.

        Returns:
            A score or an error for each model and item.

        Raises:
            ServiceError: Nothing at all could be answered: a fault of the request, a quota, or the one code
                with which every score failed.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s - _reply_s(timeout_s)
        models = self._chosen(references)
        sources = list({id(model.source): model.source for model in models}.values())
        with self._admitted(sources):
            await self._check_segments(items)
            self._quotas.admit(job, len(items))
            asked = [_recorded(source, items, deadline_s, job) for source in sources]
            found = [await asked[0]] if len(asked) == 1 else await asyncio.gather(*asked)  # A task each takes time.
            self._quotas.spend(job, sum(outcome.input_tokens for outcome in found))
        by_source = {id(source): outcome for source, outcome in zip(sources, found, strict=True)}
        outcomes = tuple(_of_model(model, by_source[id(model.source)]) for model in models)
        _raise_if_all_failed(outcomes)
        return Outcome(
            models=outcomes,
            input_tokens=sum(outcome.input_tokens for outcome in found),
            padded_tokens=sum(outcome.padded_tokens for outcome in found),
            tokenize_s=max(outcome.tokenize_s for outcome in found),
            queue_s=max(outcome.queue_s for outcome in found),
            inference_s=max(outcome.inference_s for outcome in found),
        )

    async def segment(self, text: str, granularity: Granularity) -> tuple[tuple[int, int], ...]:
        """Divide a text as the models of this granularity would.

        Raises:
            InvalidRequestError: The text cannot be divided.
            TooLongError: It has too many segments.
            DrainingError: Shutting down.
        """

        def divide() -> tuple[tuple[int, int], ...]:
            return tuple((span.start, span.end) for span in segment_text(text, granularity))

        with self._admitted():
            return await self._in_pool(divide)

    def start_draining(self) -> None:
        """Refuse new requests; admitted ones are answered."""
        self._draining = True

    async def drained(self, timeout_s: float) -> bool:
        """Wait until every admitted request is answered; False if some are not in time."""
        give_up_s = time.monotonic() + timeout_s
        while self._active and time.monotonic() < give_up_s:
            await asyncio.sleep(DRAIN_POLL_S)
        return self._active == 0

    def close(self, timeout_s: float) -> None:
        """End the sources and the pool."""
        self._draining = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        for source in (*self._sources, *self._retiring):
            source.close(timeout_s)

    @contextmanager
    def _admitted(self, sources: Sequence[ScoreSource] = ()) -> Iterator[None]:
        if self._draining:
            raise DrainingError("the service is shutting down", retry_after_s=DRAIN_RETRY_AFTER_S)
        self._active += 1
        self._at_work.update(map(id, sources))
        try:
            yield
        finally:
            self._active -= 1
            self._at_work.subtract(map(id, sources))

    def _chosen(self, references: Sequence[str] | None) -> list[ServedModel]:
        if references is None:
            chosen = list(self._models.values())
        else:
            chosen = list({model.card.name: model for model in map(self.find, references)}.values())
        if not chosen:
            raise UnknownModelError("no model is served")
        return chosen

    async def _check_segments(self, items: Sequence[TextItem]) -> None:
        """A caller's own spans are part of the request: a fault in them refuses it whole."""
        if any(item.segments for item in items):
            await self._in_pool(lambda: _check_all_segments(items))

    async def _in_pool(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


async def _recorded(
    source: ScoreSource, items: Sequence[TextItem], deadline_s: float | None, job: str
) -> SourceOutcome:
    """Ask a source, and record when it did what where somebody wants to know.

    Sources tell how long their stages took. Tokenizing comes first; the longest wait is that for the last batch, whose
    end is the end of all. So of a request in several batches the last one is shown.
    """
    begin_s = time.monotonic()
    outcome = await source.score(items, deadline_s, job)
    stages = recorded_stages.get()
    if stages is None:
        return outcome
    end_s = time.monotonic()
    inference_s = max(begin_s, end_s - outcome.inference_s)
    durations_s = (outcome.tokenize_s, outcome.queue_s, outcome.inference_s)
    all_three = (
        Stage("tokenize", source.name, begin_s, begin_s + outcome.tokenize_s),
        Stage("queue", source.name, max(begin_s, inference_s - outcome.queue_s), inference_s),
        Stage("inference", source.name, inference_s, end_s),
    )
    stages += [stage for stage, took_s in zip(all_three, durations_s, strict=True) if took_s > 0]
    return outcome


def _reply_s(timeout_s: float) -> float:
    return min(REPLY_SHARE * timeout_s, MAX_REPLY_S)


def _check_all_segments(items: Sequence[TextItem]) -> None:
    for index, item in enumerate(items):
        for granularity, spans in item.segments.items():
            try:
                check_spans(item.response, spans)
            except InvalidRequestError as error:
                path = f"items.{index}.segments.{granularity}"
                raise InvalidRequestError(f"{path}: {error.message}", path=path) from error


def _of_model(model: ServedModel, outcome: SourceOutcome) -> ModelOutcome:
    """What a source says of one of its models, whole or not at all where it is overloaded.

    A caller that was answered in part would have to come again all the same; the cache has kept what was computed.
    """
    place = model.source.cards.index(model.card)
    results = tuple(results[place] for results in outcome.results)
    refusals = [result for result in results if isinstance(result, OverloadedError)]
    if refusals:
        refusal = max(refusals, key=lambda error: error.retry_after_s or 0.0)
        results = tuple(result if _is_fault(result) else refusal for result in results)
    return ModelOutcome(model.card, results)


def _is_fault(result: ItemScore | ServiceError) -> bool:
    """Whether an item was refused for something that it will be refused for again."""
    return isinstance(result, ServiceError) and not isinstance(result, OverloadedError)


def _raise_if_all_failed(outcomes: Sequence[ModelOutcome]) -> None:
    """When every score failed for one and the same reason, that reason answers the whole request."""
    errors = [result for outcome in outcomes for result in outcome.results if isinstance(result, ServiceError)]
    total = sum(len(outcome.results) for outcome in outcomes)
    if len(errors) == total and len({error.code for error in errors}) == 1:
        # The whole request may be tried again when the last of its models may.
        raise max(errors, key=lambda error: error.retry_after_s or 0.0)
