"""The request path: choose models, segment, encode, queue, wait. The only coordinator.

Tokenizing runs on a small thread pool, so that the event loop stays free; inference on each model's worker. All the
items of a request go to a model's queue at once, so that a lone caller gets the same batches run after run.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.core.segment import check_spans, segment_text
from reward_service.core.worker import Submission, Telemetry, Worker
from reward_service.domain import Encoded, ItemScore, ModelCard, ModelOutcome, Outcome, Segmented, TextItem
from reward_service.errors import (
    DeadlineExceededError,
    DrainingError,
    InvalidRequestError,
    OverloadedError,
    ServiceError,
    UnknownModelError,
)

DRAIN_POLL_S = 0.02
"""How often draining looks whether the last request has left."""

DRAIN_RETRY_AFTER_S = 1.0
"""When a refused caller may try again; by then another instance, or the next one, answers."""

R = TypeVar("R")


class Encoder(Protocol):
    """What the scorer needs of `core.encode.InputEncoder`."""

    def encode(self, segmented: Segmented) -> Encoded:
        """Assemble one input."""
        ...


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded model: its card, its encoder and the worker that runs it."""

    card: ModelCard
    encoder: Encoder
    worker: Worker


@dataclass(slots=True)
class _ModelRun:
    """One model's part of one request, as it comes in."""

    model: ServedModel
    submission: Submission
    inputs: list[tuple[int, Encoded]] = field(default_factory=list)
    tokenize_s: float = 0.0


class Scorer:
    """Scores responses with the loaded models. Its coroutines belong to one event loop.

    Args:
        models: The loaded models, their names unique, their workers started.
        max_queue_items: Inputs of one model that may be tokenized or wait at a time.
        encode_threads: Threads of the tokenizing pool.
        telemetry: Is told of tokenizing.
    """

    def __init__(
        self, models: Sequence[ServedModel], *, max_queue_items: int, encode_threads: int, telemetry: Telemetry
    ) -> None:
        self._models = {model.card.name: model for model in models}
        self._max_queue_items = max_queue_items
        self._encoding = dict.fromkeys(self._models, 0)
        self._telemetry = telemetry
        self._pool = ThreadPoolExecutor(encode_threads, thread_name_prefix="encode")
        self._active = 0
        self._draining = False

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
        self, items: Sequence[TextItem], references: Sequence[str] | None = None, timeout_s: float | None = None
    ) -> Outcome:
        """Score every item with every model.

        Args:
            items: At least one.
            references: `name`, `name@alias` or `name@version`; a model named twice runs once. All loaded ones if None.
            timeout_s: Scores that are not there by then are `DeadlineExceededError` in their places.

        Returns:
            A score or an error for each model and item.

        Raises:
            ServiceError: Nothing at all could be answered: a fault of the request, a full queue, or the one code
                with which every score failed.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        models = self._chosen(references)
        with self._admitted():
            await self._check_segments(items)
            self._check_room(models, len(items), timeout_s)
            runs = await asyncio.gather(*(self._run(model, items, deadline_s) for model in models))
        outcomes = tuple(
            ModelOutcome(run.model.card, tuple(_or_late(result) for result in run.submission.results)) for run in runs
        )
        _raise_if_all_failed(outcomes)
        return Outcome(
            models=outcomes,
            input_tokens=sum(encoded.length_tokens for run in runs for _, encoded in run.inputs),
            padded_tokens=sum(run.submission.padded_tokens for run in runs),
            tokenize_s=max(run.tokenize_s for run in runs),
            queue_s=max(run.submission.queue_s for run in runs),
            inference_s=max(run.submission.inference_s for run in runs),
        )

    async def segment(self, text: str, granularity: Granularity) -> tuple[tuple[int, int], ...]:
        """Divide a text as the models of this granularity would.

        Raises:
            InvalidRequestError: The text cannot be divided.
            DrainingError: Shutting down.
        """
        with self._admitted():
            spans = await self._in_pool(lambda: segment_text(text, granularity))
        return tuple((span.start, span.end) for span in spans)

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
        """End the workers and the pool."""
        self._draining = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        for model in self._models.values():
            model.worker.close(timeout_s)

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._draining:
            raise DrainingError("the service is shutting down", retry_after_s=DRAIN_RETRY_AFTER_S)
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1

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

    def _check_room(self, models: Sequence[ServedModel], items: int, timeout_s: float | None) -> None:
        for model in models:
            wait_s = model.worker.estimated_wait_s
            if self._encoding[model.card.name] + model.worker.queue.items + items > self._max_queue_items:
                raise OverloadedError("the queue is full", retry_after_s=wait_s, model=model.card.name)
            if timeout_s is not None and wait_s > timeout_s:
                raise OverloadedError(
                    f"the queue takes about {wait_s:.1f} s, the deadline is {timeout_s} s away",
                    retry_after_s=wait_s,
                    model=model.card.name,
                )

    async def _run(self, model: ServedModel, items: Sequence[TextItem], deadline_s: float | None) -> _ModelRun:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def wake() -> None:
            # A closed loop has nobody left to wake; that must not end the worker that found out.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(done.set)

        submission = Submission(len(items), deadline_s, wake)
        run = _ModelRun(model, submission)
        remaining_s = None if deadline_s is None else deadline_s - time.monotonic()
        try:
            # What is not there when the time is up is told to be late in its own place.
            with suppress(TimeoutError):
                async with asyncio.timeout(remaining_s):
                    await self._encode_in_pool(run, items)
                    await done.wait()
        finally:
            submission.abandoned = True
        return run

    async def _encode_in_pool(self, run: _ModelRun, items: Sequence[TextItem]) -> None:
        name = run.model.card.name
        self._encoding[name] += len(items)
        try:
            await self._in_pool(lambda: self._encode(run, items))
        finally:
            self._encoding[name] -= len(items)

    def _encode(self, run: _ModelRun, items: Sequence[TextItem]) -> None:
        """Segment and tokenize the items, then queue them; on the pool's thread."""
        begin_s = time.monotonic()
        card, submission = run.model.card, run.submission
        settled: list[tuple[int, ItemScore | ServiceError]] = []
        for index, item in enumerate(items):
            if submission.abandoned:
                return
            try:
                segmented = _segmented(card, item)
                if not segmented.spans and card.head.kind is ModelKind.TOKEN_CLASSIFICATION:
                    settled.append((index, ItemScore((), None)))
                else:
                    run.inputs.append((index, run.model.encoder.encode(segmented)))
            except ServiceError as error:
                settled.append((index, error))
        run.tokenize_s = time.monotonic() - begin_s
        truncated = sum(encoded.truncated_tokens > 0 for _, encoded in run.inputs)
        self._telemetry.encoded(card.name, run.tokenize_s, truncated)
        for index, result in settled:
            submission.settle(index, result)
        if not run.inputs:
            return
        try:
            run.model.worker.submit(submission, run.inputs)
        except ServiceError as error:
            if isinstance(error, OverloadedError):
                error.retry_after_s = run.model.worker.estimated_wait_s
            for index, _ in run.inputs:
                submission.settle(index, error)

    async def _in_pool(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _segmented(card: ModelCard, item: TextItem) -> Segmented:
    own = item.segments.get(card.granularity)
    return Segmented(item, segment_text(item.response, card.granularity, card.language) if own is None else own)


def _check_all_segments(items: Sequence[TextItem]) -> None:
    for index, item in enumerate(items):
        for granularity, spans in item.segments.items():
            try:
                check_spans(item.response, spans)
            except InvalidRequestError as error:
                path = f"items.{index}.segments.{granularity}"
                raise InvalidRequestError(f"{path}: {error.message}", path=path) from error


def _or_late(result: ItemScore | ServiceError | None) -> ItemScore | ServiceError:
    return DeadlineExceededError("the caller's timeout passed") if result is None else result


def _raise_if_all_failed(outcomes: Sequence[ModelOutcome]) -> None:
    """When every score failed for one and the same reason, that reason answers the whole request."""
    errors = [result for outcome in outcomes for result in outcome.results if isinstance(result, ServiceError)]
    total = sum(len(outcome.results) for outcome in outcomes)
    if len(errors) == total and len({error.code for error in errors}) == 1:
        raise errors[0]
