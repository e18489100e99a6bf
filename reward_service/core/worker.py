"""The batch path: one queue, one thread and one backend for each loaded model.

A batch that fails is run again item by item, so that one bad item does not take its neighbours with it; what fails
then is `model_failed`, and the worker lives on. A worker whose thread ends is no longer `alive`, and everything that
waits for it fails instead of hanging.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from reward_service.core.align import align
from reward_service.core.backend import Backend
from reward_service.core.collate import collate
from reward_service.core.token_queue import TokenQueue
from reward_service.domain import Batch, Encoded, Head, ItemScore, Read, Span
from reward_service.errors import ModelFailedError, ServiceError

logger = logging.getLogger(__name__)

WARM_UP_TOKENS = 16
"""Length of the input that a model is warmed up with."""

RATE_SMOOTHING = 0.2
"""Weight of the newest batch in the moving average of the speed."""


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What one inference was like.

    Attributes:
        model: The model's name.
        items: Inputs in the batch.
        real_tokens: Their tokens.
        padded_tokens: Longest input x items.
        inference_s: How long the backend took.
        queue_s: How long each input had waited.
        scores: The sequence scores that came out, by the name of the head.
    """

    model: str
    items: int
    real_tokens: int
    padded_tokens: int
    inference_s: float
    queue_s: tuple[float, ...]
    scores: tuple[tuple[str, tuple[float, ...]], ...]


class Telemetry(Protocol):
    """Is told what happened; the web layer counts it. Called from several threads."""

    def batch_done(self, report: BatchReport) -> None:
        """A batch was inferred."""
        ...

    def encoded(self, model: str, tokenize_s: float, truncated: int) -> None:
        """The items of one request were segmented and tokenized; `truncated` of them were cut."""
        ...


HeadScores = tuple[ItemScore | ModelFailedError, ...]
"""What each head of a model says of one item."""


class Submission:
    """The items of one request for one model. Results come in place, from the worker's thread.

    Attributes:
        results: One for each item of the request, or the error that stands for it; None until it is there.
        deadline_s: On the monotonic clock; None waits for ever.
        abandoned: Set by the caller when it no longer waits.
        padded_tokens: Tokens computed for the items so far, padding included.
        queue_s: Longest wait of an item in the queue.
        inference_s: Longest inference that an item was part of.
    """

    def __init__(self, size: int, deadline_s: float | None, on_done: Callable[[], None]) -> None:
        self.results: list[HeadScores | ServiceError | None] = [None] * size
        self.deadline_s = deadline_s
        self.abandoned = False
        self.padded_tokens = 0
        self.queue_s = 0.0
        self.inference_s = 0.0
        self._pending = size
        self._on_done = on_done
        self._lock = threading.Lock()

    def settle(self, index: int, result: HeadScores | ServiceError) -> None:
        """Put in one result; the last one wakes the caller. Each index is settled once."""
        with self._lock:
            self.results[index] = result
            self._pending -= 1
            is_last = self._pending == 0
        if is_last:
            self._on_done()


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One input in the queue."""

    encoded: Encoded
    submission: Submission
    index: int
    enqueued_s: float

    @property
    def length_tokens(self) -> int:
        """Real tokens of the input."""
        return self.encoded.length_tokens

    def is_abandoned(self, now_s: float) -> bool:
        """Whether its caller left, or its deadline has passed."""
        deadline_s = self.submission.deadline_s
        return self.submission.abandoned or (deadline_s is not None and now_s >= deadline_s)


class Worker:
    """Runs one model's batches on a thread of its own.

    Args:
        model: The model's name, for logs and metrics.
        backend: Computes the logits; used by this worker alone.
        heads: Turn logits into scores.
        pad_id: The tokenizer's padding.
        queue: Where inputs wait.
        telemetry: Is told of each batch.
    """

    def __init__(
        self,
        model: str,
        backend: Backend,
        heads: Sequence[Head],
        pad_id: int,
        queue: TokenQueue[Entry],
        telemetry: Telemetry,
    ) -> None:
        self.queue = queue
        self.model = model
        self._backend = backend
        self._heads = tuple(heads)
        self._pad_id = pad_id
        self._telemetry = telemetry
        self._tokens_per_s = 0.0
        self._thread = threading.Thread(target=self._run, name=f"worker-{model}", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether batches are being run."""
        return self._thread.is_alive()

    @property
    def estimated_wait_s(self) -> float:
        """How long the queue will take at the measured speed; 0 before the first batch."""
        return self.queue.tokens / self._tokens_per_s if self._tokens_per_s else 0.0

    def warm_up(self) -> None:
        """Run one input through the backend and check that its output fits the heads.

        Raises:
            ModelFailedError: The model cannot be run, or gives something else than its manifest says.
        """
        ids = np.full((1, WARM_UP_TOKENS), self._pad_id, dtype=np.int64)
        logits = self._backend.infer(Batch(ids, np.ones_like(ids)))
        nothing = Read(np.zeros(0, dtype=np.int64), ())
        whole = Read(nothing.positions, (Span(0, 0),))
        align(self._heads, [Encoded(ids[0], (nothing,) * len(self._heads) if logits.ndim == 3 else (whole,))], logits)

    def start(self) -> None:
        """Begin to run batches."""
        self._thread.start()

    def submit(self, submission: Submission, inputs: Sequence[tuple[int, Encoded]]) -> None:
        """Queue a request's inputs, all or none, each with its index in the submission.

        Raises:
            OverloadedError: The queue is full.
            PayloadTooLargeError: They are more than the queue ever holds.
            ModelFailedError: The worker has ended.
        """
        now_s = time.monotonic()
        entries = [Entry(encoded, submission, index, now_s) for index, encoded in inputs]
        try:
            self.queue.put(entries)
        except RuntimeError as error:
            raise ModelFailedError(f"the worker of model {self.model!r} has ended") from error

    def close(self, timeout_s: float) -> None:
        """End the thread after the batch at hand, then free the backend. What still waits fails."""
        self._fail_waiting()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self._backend.close()

    def _run(self) -> None:
        entries: list[Entry] = []
        closed = False
        try:
            while entries := self.queue.take():
                self._serve(entries)
            closed = True
        finally:
            # Nobody may be left hanging, whatever ended the thread.
            if not closed:
                logger.critical("worker of model %s ended unexpectedly", self.model)
                self._fail([entry for entry in entries if entry.submission.results[entry.index] is None])
                self._fail_waiting()

    def _serve(self, entries: list[Entry]) -> None:
        try:
            results = self._infer(entries)
        except Exception as error:
            if len(entries) == 1:
                logger.exception("model %s failed on an input of %d tokens", self.model, entries[0].length_tokens)
                entries[0].submission.settle(entries[0].index, _as_service_error(error))
                return
            logger.exception("model %s failed on a batch of %d; running them one by one", self.model, len(entries))
            for entry in entries:
                self._serve([entry])
            return
        for entry, result in zip(entries, results, strict=True):
            entry.submission.settle(entry.index, result)

    def _infer(self, entries: list[Entry]) -> list[HeadScores]:
        batch = collate([entry.encoded for entry in entries], self._pad_id)
        begin_s = time.monotonic()
        logits = self._backend.infer(batch)
        inference_s = time.monotonic() - begin_s
        results = align(self._heads, [entry.encoded for entry in entries], logits)
        self._account(entries, results, begin_s, inference_s, int(batch.input_ids.size))
        return results

    def _account(
        self,
        entries: list[Entry],
        results: Sequence[HeadScores],
        begin_s: float,
        inference_s: float,
        padded_tokens: int,
    ) -> None:
        real_tokens = sum(entry.length_tokens for entry in entries)
        for entry in entries:
            submission = entry.submission
            submission.padded_tokens += padded_tokens // len(entries)
            submission.queue_s = max(submission.queue_s, begin_s - entry.enqueued_s)
            submission.inference_s = max(submission.inference_s, inference_s)
        rate = real_tokens / max(inference_s, 1e-9)
        self._tokens_per_s += (rate - self._tokens_per_s) * (RATE_SMOOTHING if self._tokens_per_s else 1.0)
        self._telemetry.batch_done(
            BatchReport(
                model=self.model,
                items=len(entries),
                real_tokens=real_tokens,
                padded_tokens=padded_tokens,
                inference_s=inference_s,
                queue_s=tuple(begin_s - entry.enqueued_s for entry in entries),
                scores=tuple(
                    (head.name or self.model, _sequence_scores(of_head))
                    for head, of_head in zip(self._heads, zip(*results, strict=True), strict=True)
                ),
            )
        )

    def _fail_waiting(self) -> None:
        self._fail(self.queue.close())

    def _fail(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            entry.submission.settle(
                entry.index, ModelFailedError(f"the worker of model {self.model!r} ended before this item's turn")
            )


def _sequence_scores(results: Sequence[ItemScore | ModelFailedError]) -> tuple[float, ...]:
    return tuple(r.sequence_score for r in results if isinstance(r, ItemScore) and r.sequence_score is not None)


def _as_service_error(error: Exception) -> ServiceError:
    return error if isinstance(error, ServiceError) else ModelFailedError(f"the model failed: {type(error).__name__}")
