"""A model on a worker: segment, encode, queue, wait.

Tokenizing runs on a small thread pool, so that the event loop stays free, or for short texts on the model's worker if
that is idle; inference on the worker. All the items of a request go to the queue at once, so that a lone caller gets
the same batches run after run.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from reward_proto.models import ModelKind
from reward_service.core.source import SourceOutcome, refuse_all, spans_for
from reward_service.core.submission import HeadScores, Submission
from reward_service.core.telemetry import Telemetry
from reward_service.core.wait_correction import WaitCorrection
from reward_service.core.worker import Worker
from reward_service.domain import Encoded, ItemScore, ModelCard, Span, TextItem
from reward_service.errors import DeadlineExceededError, OverloadedError, RateLimitedError, ServiceError

ENCODED_TOGETHER = 8
"""Items of one request that the pool takes in one go."""

SHORT_CHARS = 4096
"""Of so much the encoding may keep an idle worker from what else comes: about a millisecond."""


class Encoder(Protocol):
    """What is needed of `core.encode.InputEncoder`."""

    def encode(self, item: TextItem, spans: Sequence[tuple[Span, ...]]) -> Encoded:
        """Assemble one input."""
        ...


@dataclass(slots=True)
class _Run:
    """One request, as its scores come in."""

    submission: Submission
    reserved: int
    inputs: list[tuple[int, Encoded]] = field(default_factory=list)
    settled: list[tuple[int, HeadScores | ServiceError]] = field(default_factory=list)
    tokenize_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take_reserved(self) -> int:
        """The places in the queue that are kept for it; from now on whoever asked is in charge of them."""
        with self.lock:
            reserved, self.reserved = self.reserved, 0
        return reserved


class EncoderSource:
    """A loaded model. Its coroutines belong to one event loop.

    Args:
        cards: One for each head.
        encoder: Makes the model's inputs.
        worker: Runs its batches.
        pool: Segments and tokenizes; shared by all the models.
        telemetry: Is told of tokenizing.
    """

    def __init__(
        self,
        cards: Sequence[ModelCard],
        encoder: Encoder,
        worker: Worker,
        *,
        pool: Executor,
        telemetry: Telemetry,
    ) -> None:
        self.cards = tuple(cards)
        self.worker = worker
        self._encoder = encoder
        self._pool = pool
        self._telemetry = telemetry
        self._correction = WaitCorrection()
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
        begin_s = time.monotonic()
        try:
            expected_s, waits = self._admit(len(items), deadline_s, job)
        except ServiceError as error:
            return refuse_all(error, len(items), len(self.cards))
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def wake() -> None:
            # A closed loop has nobody left to wake; that must not end the worker that found out.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(done.set)

        run = _Run(Submission(len(items), deadline_s, wake, job), reserved=len(items))
        remaining_s = None if deadline_s is None else deadline_s - time.monotonic()
        try:
            # What is not there when the time is up is told to be late in its own place.
            with suppress(TimeoutError):
                async with asyncio.timeout(remaining_s):
                    last = await self._encode_in_pool(run, items, wake)
                    await done.wait()
                    if last.done():
                        last.result()  # Raises what ended it, if anything did.
            self._correction.learn(expected_s, time.monotonic() - begin_s)
        finally:
            run.submission.abandoned = True
            self._give_back(run)
        submission = run.submission
        late = self._late(run, waits)
        return SourceOutcome(
            results=tuple(self._by_head(late if result is None else result) for result in submission.results),
            input_tokens=sum(encoded.length_tokens for _, encoded in run.inputs),
            padded_tokens=submission.padded_tokens,
            tokenize_s=run.tokenize_s,
            queue_s=submission.queue_s,
            inference_s=submission.inference_s,
        )

    def _admit(self, items: int, deadline_s: float | None, job: str) -> tuple[float, bool]:
        """Keep places in the queue, or refuse a request before it costs anything.

        Returns:
            How long it should take, and whether that is because others are before it.
        """
        expected_s, own_s = self.worker.wait_s(job, items)
        if deadline_s is not None and expected_s > own_s:  # An idle model tries what it can.
            left_s = deadline_s - time.monotonic()
            done_s = expected_s * self._correction.factor
            if done_s > left_s:
                raise OverloadedError(
                    f"at this job's share of the queue it takes about {done_s:.1f} s, the deadline is {left_s:.1f} s"
                    " away",
                    retry_after_s=min(done_s - own_s, done_s - left_s),
                    model=self.name,
                )
        try:
            self.worker.queue.reserve(job, items)
        except (OverloadedError, RateLimitedError) as error:
            raise self._with_wait(error, job) from error
        return expected_s, expected_s > own_s

    def _late(self, run: _Run, was_behind: bool) -> ServiceError:
        """Why what has no result is not there in time: others had their turn, or it takes longer than was given."""
        # Its own items may still be in the queue, where nobody has looked at them since the deadline.
        own = sum(result is None for result in run.submission.results)
        is_known = self.worker.cost.cost.token_s > 0
        if was_behind or (is_known and self.worker.queue.items > own):
            error = OverloadedError("the queue took longer than expected, and the deadline passed")
            return self._with_wait(error, run.submission.job)
        return DeadlineExceededError("the caller's timeout passed")

    def _with_wait(self, error: ServiceError, job: str) -> ServiceError:
        """A refusal, with the time that what the job has waiting takes."""
        expected_s, _ = self.worker.wait_s(job)
        error.retry_after_s = expected_s * self._correction.factor
        error.details.setdefault("model", self.name)
        return error

    def _give_back(self, run: _Run) -> None:
        """Free the places of what did not get into the queue; what did has taken its own."""
        if reserved := run.take_reserved():
            self.worker.queue.release(run.submission.job, reserved)

    def _by_head(self, result: HeadScores | ServiceError) -> tuple[ItemScore | ServiceError, ...]:
        return result if isinstance(result, tuple) else (result,) * len(self.cards)

    async def _encode_in_pool(self, run: _Run, items: Sequence[TextItem], wake: Callable[[], None]) -> "Future[None]":
        """Segment and tokenize on the pool, a few items at a time so that requests take turns; then queue them.

        Args:
            run: The request.
            items: Its items.
            wake: Is called if the last part fails, since then no result wakes the caller.

        Returns:
            The last part, which is not waited for: the results tell that it is done.
        """
        loop = asyncio.get_running_loop()
        numbered = list(enumerate(items))
        last = (len(items) - 1) // ENCODED_TOGETHER * ENCODED_TOGETHER
        for begin in range(0, last, ENCODED_TOGETHER):
            await loop.run_in_executor(self._pool, self._encode, run, numbered[begin : begin + ENCODED_TOGETHER])
        future = self._begin(partial(self._encode_last, run, numbered[last:]), numbered[last:])

        def wake_if_failed(future: "Future[None]") -> None:
            if future.cancelled() or future.exception() is not None:
                wake()

        future.add_done_callback(wake_if_failed)
        return future

    def _begin(self, encode: Callable[[], None], items: Sequence[tuple[int, TextItem]]) -> "Future[None]":
        """Let the pool encode, or for short texts the worker itself if it is idle: that saves a way between threads."""
        if sum(_chars(item) for _, item in items) <= SHORT_CHARS:
            future: Future[None] = Future()
            if self.worker.prepare(partial(_run_into, future, encode)):
                return future
        return self._pool.submit(encode)

    def _encode_last(self, run: _Run, items: Sequence[tuple[int, TextItem]]) -> None:
        """Segment and tokenize the rest, and queue all; at once, since another way over the loop takes time."""
        self._encode(run, items)
        if run.submission.abandoned:
            return
        truncated = sum(encoded.truncated_tokens > 0 for _, encoded in run.inputs)
        self._telemetry.encoded(self.name, run.tokenize_s, truncated)
        for index, result in run.settled:
            run.submission.settle(index, result)
        self._enqueue(run)

    def _encode(self, run: _Run, items: Sequence[tuple[int, TextItem]]) -> None:
        """Segment and tokenize some of a request's items; on the pool's thread."""
        begin_s = time.monotonic()
        for index, item in items:
            if run.submission.abandoned:
                return
            try:
                spans = [spans_for(card, item) for card in self.cards]
                if self._needs_text and not any(spans):
                    run.settled.append((index, (ItemScore((), None),) * len(self.cards)))
                else:
                    run.inputs.append((index, self._encoder.encode(item, spans)))
            except ServiceError as error:
                run.settled.append((index, error))
        run.tokenize_s += time.monotonic() - begin_s

    def _enqueue(self, run: _Run) -> None:
        """Queue what was encoded, whole."""
        if not run.inputs:
            return
        try:
            self.worker.submit(run.submission, run.inputs, run.take_reserved())
        except ServiceError as error:
            if isinstance(error, OverloadedError | RateLimitedError):
                self._with_wait(error, run.submission.job)
            for index, _ in run.inputs:
                run.submission.settle(index, error)


def _chars(item: TextItem) -> int:
    return len(item.prompt) + len(item.response) + sum(map(len, item.fields.values()))


def _run_into(future: "Future[None]", work: Callable[[], None]) -> None:
    """Do what a pool does with its work, for a thread that must not end with it."""
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - who waits for the future raises it
        future.set_exception(error)
    else:
        future.set_result(None)
