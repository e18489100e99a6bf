"""A model on a worker: segment, encode, queue, wait.

Tokenizing runs on a small thread pool, so that the event loop stays free; inference on the model's worker. All the
items of a request go to the queue at once, so that a lone caller gets the same batches run after run.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from reward_proto.models import ModelKind
from reward_service.core.source import SourceOutcome, check_deadline, or_late, refuse_all, spans_for
from reward_service.core.worker import HeadScores, Submission, Telemetry, Worker
from reward_service.domain import Encoded, ItemScore, ModelCard, Span, TextItem
from reward_service.errors import OverloadedError, ServiceError


class Encoder(Protocol):
    """What is needed of `core.encode.InputEncoder`."""

    def encode(self, item: TextItem, spans: Sequence[tuple[Span, ...]]) -> Encoded:
        """Assemble one input."""
        ...


@dataclass(slots=True)
class _Run:
    """One request, as its scores come in."""

    submission: Submission
    inputs: list[tuple[int, Encoded]] = field(default_factory=list)
    tokenize_s: float = 0.0


class EncoderSource:
    """A loaded model. Its coroutines belong to one event loop.

    Args:
        cards: One for each head.
        encoder: Makes the model's inputs.
        worker: Runs its batches.
        pool: Segments and tokenizes; shared by all the models.
        max_queue_items: Inputs that may be tokenized or wait at a time.
        telemetry: Is told of tokenizing.
    """

    def __init__(
        self,
        cards: Sequence[ModelCard],
        encoder: Encoder,
        worker: Worker,
        *,
        pool: Executor,
        max_queue_items: int,
        telemetry: Telemetry,
    ) -> None:
        self.cards = tuple(cards)
        self.worker = worker
        self._encoder = encoder
        self._pool = pool
        self._max_queue_items = max_queue_items
        self._telemetry = telemetry
        self._encoding = 0
        self._needs_text = all(card.head.kind is ModelKind.TOKEN_CLASSIFICATION for card in self.cards)

    @property
    def name(self) -> str:
        """See `core.source.ScoreSource`."""
        return self.worker.model

    @property
    def alive(self) -> bool:
        """See `core.source.ScoreSource`."""
        return self.worker.alive

    @property
    def queue_items(self) -> int:
        """See `core.source.ScoreSource`."""
        return self.worker.queue.items

    @property
    def queue_tokens(self) -> int:
        """See `core.source.ScoreSource`."""
        return self.worker.queue.tokens

    @property
    def estimated_wait_s(self) -> float:
        """See `core.source.ScoreSource`."""
        return self.worker.estimated_wait_s

    def start(self) -> None:
        """See `core.source.ScoreSource`."""
        self.worker.start()

    def close(self, timeout_s: float) -> None:
        """See `core.source.ScoreSource`."""
        self.worker.close(timeout_s)

    async def score(self, items: Sequence[TextItem], deadline_s: float | None, job: str = "") -> SourceOutcome:
        """See `core.source.ScoreSource`."""
        try:
            self._check_room(len(items), deadline_s)
        except ServiceError as error:
            return refuse_all(error, len(items), len(self.cards))
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def wake() -> None:
            # A closed loop has nobody left to wake; that must not end the worker that found out.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(done.set)

        run = _Run(Submission(len(items), deadline_s, wake))
        remaining_s = None if deadline_s is None else deadline_s - time.monotonic()
        try:
            # What is not there when the time is up is told to be late in its own place.
            with suppress(TimeoutError):
                async with asyncio.timeout(remaining_s):
                    await self._encode_in_pool(run, items)
                    await done.wait()
        finally:
            run.submission.abandoned = True
        submission = run.submission
        return SourceOutcome(
            results=tuple(self._by_head(result) for result in submission.results),
            input_tokens=sum(encoded.length_tokens for _, encoded in run.inputs),
            padded_tokens=submission.padded_tokens,
            tokenize_s=run.tokenize_s,
            queue_s=submission.queue_s,
            inference_s=submission.inference_s,
        )

    def _check_room(self, items: int, deadline_s: float | None) -> None:
        wait_s = self.estimated_wait_s
        if items > self._max_queue_items - self._encoding - self.worker.queue.items:
            raise OverloadedError("the queue is full", retry_after_s=wait_s, model=self.name)
        check_deadline(self.name, wait_s, deadline_s)

    def _by_head(self, result: HeadScores | ServiceError | None) -> tuple[ItemScore | ServiceError, ...]:
        return result if isinstance(result, tuple) else (or_late(result),) * len(self.cards)

    async def _encode_in_pool(self, run: _Run, items: Sequence[TextItem]) -> None:
        self._encoding += len(items)
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, lambda: self._encode(run, items))
        finally:
            self._encoding -= len(items)

    def _encode(self, run: _Run, items: Sequence[TextItem]) -> None:
        """Segment and tokenize the items, then queue them; on the pool's thread."""
        begin_s = time.monotonic()
        submission = run.submission
        settled: list[tuple[int, HeadScores | ServiceError]] = []
        for index, item in enumerate(items):
            if submission.abandoned:
                return
            try:
                spans = [spans_for(card, item) for card in self.cards]
                if self._needs_text and not any(spans):
                    settled.append((index, (ItemScore((), None),) * len(self.cards)))
                else:
                    run.inputs.append((index, self._encoder.encode(item, spans)))
            except ServiceError as error:
                settled.append((index, error))
        run.tokenize_s = time.monotonic() - begin_s
        truncated = sum(encoded.truncated_tokens > 0 for _, encoded in run.inputs)
        self._telemetry.encoded(self.name, run.tokenize_s, truncated)
        for index, result in settled:
            submission.settle(index, result)
        if not run.inputs:
            return
        try:
            self.worker.submit(submission, run.inputs)
        except ServiceError as error:
            if isinstance(error, OverloadedError):
                error.retry_after_s = self.worker.estimated_wait_s
            for index, _ in run.inputs:
                submission.settle(index, error)
