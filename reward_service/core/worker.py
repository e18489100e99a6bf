"""The batch path: one queue for each loaded model, and the replicas that take from it, one for each lane of a backend.

A replica whose threads end makes the worker no longer `alive`, while the others go on; when the last one has ended,
everything that waits fails instead of hanging.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from reward_service.core.align import align
from reward_service.core.cost_model import CostModel
from reward_service.core.division import Division
from reward_service.core.replica import Replica, fail_entries
from reward_service.core.submission import Entry, HeadScores, Submission
from reward_service.core.telemetry import BatchReport, Telemetry
from reward_service.core.token_queue import TokenQueue
from reward_service.domain import Batch, Encoded, Head, Read, Span
from reward_service.errors import ModelFailedError

__all__ = ["BatchReport", "Entry", "HeadScores", "Submission", "Telemetry", "Worker"]

logger = logging.getLogger(__name__)

WARM_UP_TOKENS = 16
"""Length of the input that a model is warmed up with."""


class Worker:
    """Runs one model's batches on threads of its own.

    Args:
        model: The model's name, for logs and metrics.
        divisions: Backends of one runtime, each of which runs batches of its own; used by this worker alone.
        heads: Turn logits into scores.
        pad_id: The tokenizer's padding.
        queue: Where inputs wait.
        telemetry: Is told of each batch.
        shares_cores: See `core.cost_model.CostModel`.
    """

    def __init__(
        self,
        model: str,
        divisions: Sequence[Division],
        heads: Sequence[Head],
        pad_id: int,
        queue: TokenQueue[Entry],
        telemetry: Telemetry,
        *,
        shares_cores: bool = False,
    ) -> None:
        self.queue = queue
        self.model = model
        self.cost = CostModel(shares_cores=shares_cores)
        self._heads = tuple(heads)
        self._pad_id = pad_id
        self._ended = 0
        self._ending = threading.Lock()
        self._placed = {
            division: [
                Replica(model, division, lane, heads, pad_id, queue, self.cost, telemetry, self._replica_ended)
                for lane in division.lanes
            ]
            for division in divisions
        }
        self.replicas = tuple(chain.from_iterable(self._placed.values()))
        queue.takers = len(self.replicas)

    @property
    def alive(self) -> bool:
        """Whether every replica runs batches."""
        return all(replica.alive for replica in self.replicas)

    @property
    def estimated_wait_s(self) -> float:
        """How long what waits will take, as learned; 0 before the first batch."""
        return self._seconds(self.queue.tokens, self._busy_s())

    def wait_s(self, job: str, items: int = 0) -> tuple[float, float]:
        """How long a job's items will wait and take.

        Args:
            job: Whose.
            items: That it would add, of average length.

        Returns:
            Until the last of them is done, all jobs having their shares; and what they take on an idle model. Both 0
            before the first batch.
        """
        tokens = round(items * self.cost.cost.item_tokens)
        busy_s = self._busy_s()
        own_s = self._seconds(tokens, [0.0] * len(busy_s))
        if not self.queue.items and not any(busy_s):
            return own_s, own_s
        return self._seconds(self.queue.tokens_until_done(job, tokens), busy_s), own_s

    def warm_up(self) -> None:
        """Run one input through each backend and check that its output fits the heads.

        Raises:
            ModelFailedError: The model cannot be run, or gives something else than its manifest says.
        """
        ids = np.full((1, WARM_UP_TOKENS), self._pad_id, dtype=np.int64)
        nothing = Read(np.zeros(0, dtype=np.int64), ())
        whole = Read(nothing.positions, (Span(0, 0),))
        for backend in chain.from_iterable(division.backends for division in self._placed):
            logits = backend.infer(Batch(ids, np.ones_like(ids)))
            reads = (nothing,) * len(self._heads) if logits.ndim == 3 else (whole,)
            align(self._heads, [Encoded(ids[0], reads)], logits)

    def start(self) -> None:
        """Begin to run batches."""
        for replica in self.replicas:
            replica.start()

    def submit(self, submission: Submission, inputs: Sequence[tuple[int, Encoded]], reserved: int = 0) -> None:
        """Queue a request's inputs, all or none, each with its index in the submission.

        Args:
            submission: The request's.
            inputs: At least one.
            reserved: Places that were kept in the queue; given back in any case.

        Raises:
            OverloadedError: The queue is full.
            RateLimitedError: The job has as many waiting as it may have.
            PayloadTooLargeError: They are more than the queue ever holds.
            ModelFailedError: The worker has ended.
        """
        now_s = time.monotonic()
        entries = [Entry(encoded, submission, index, now_s) for index, encoded in inputs]
        try:
            self.queue.put(entries, reserved)
        except RuntimeError as error:
            raise ModelFailedError(f"the worker of model {self.model!r} has ended") from error

    def prepare(self, work: Callable[[], None]) -> bool:
        """Let an idle replica prepare inputs and submit them; see `TokenQueue.send`."""
        return self.queue.send(work)

    def close(self, timeout_s: float) -> None:
        """End the threads after the batches at hand, then free the backends. What still waits fails."""
        self._fail_waiting()
        give_up_s = time.monotonic() + timeout_s
        for division, replicas in self._placed.items():
            if all(replica.join(max(0.0, give_up_s - time.monotonic())) for replica in replicas):
                division.close()

    def _busy_s(self) -> list[float]:
        """How long each replica that lives is at work still, shortest first."""
        return sorted(replica.remaining_s for replica in self.replicas if replica.alive)

    def _seconds(self, tokens: float, busy_s: Sequence[float]) -> float:
        """How long so many tokens take on replicas that are free after so long, shortest first."""
        if not tokens or not busy_s:
            return 0.0
        # Who is free first begins first, and all end together.
        work_s = self.cost.cost.of_queue(tokens, self.queue.batch_tokens)
        return min((work_s + sum(busy_s[:count])) / count for count in range(1, len(busy_s) + 1))

    def _replica_ended(self) -> None:
        with self._ending:
            self._ended += 1
            is_last = self._ended == len(self.replicas)
            self.queue.takers = max(1, len(self.replicas) - self._ended)
        if is_last:
            self._fail_waiting()

    def _fail_waiting(self) -> None:
        fail_entries(self.model, self.queue.close())
