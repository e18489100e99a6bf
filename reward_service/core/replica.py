"""One backend of a model or one lane of it, and the two threads that take turns on it.

While one thread infers, the other puts the next batch together, and after an inference hands out its scores while the
next one runs. It chooses the next batch only shortly before the backend is expected to be free, so that what comes in
the meantime is not left out; what nobody waits for any more is dropped again right before the inference.

A batch that fails is run again item by item, so that one bad item does not take its neighbours with it; what fails
then is `model_failed`, and the threads live on, unless the device itself is lost. When a thread ends, so does the
other, and all that they hold fails.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence

from reward_service.core.align import align
from reward_service.core.backend import Backend, DeviceLostError
from reward_service.core.collate import collate
from reward_service.core.cost_model import CostModel
from reward_service.core.division import Division
from reward_service.core.inference import Failure, Inference
from reward_service.core.submission import Entry
from reward_service.core.telemetry import Telemetry
from reward_service.core.token_queue import TokenQueue
from reward_service.domain import Batch, Head
from reward_service.errors import ModelFailedError, ServiceError

logger = logging.getLogger(__name__)

PREPARE_S = 0.002
"""So long before the backend is expected to be free the next batch is chosen; choosing and padding take about a tenth
of it for short inputs."""

LONGEST_WAIT_S = 3600.0
"""Python's locks take no infinity."""

PATIENCE_S = 1.0
"""So long after the backend was expected to be free its next batch waits for it. Then it goes back to the queue: others
may have time, and this one may never be free."""

STUCK_S, STUCK_FACTOR = 60.0, 10.0
"""An inference that is late by so much, and by so many times what it was expected to take, is taken to hang, as on a
device that answers no more. Until it is over its worker counts as dead."""

THREADS = 2


class Replica:
    """Runs batches of a queue on one backend.

    Args:
        model: The model's name, for logs and metrics.
        division: Computes the logits.
        lane: The one of its lanes that is used by this replica alone.
        heads: Turn logits into scores.
        pad_id: The tokenizer's padding.
        queue: Where inputs wait; other replicas may take from it too.
        cost: Learns what batches cost.
        telemetry: Is told of each batch.
        on_broken: Called once if a thread ends though the queue is open.
    """

    def __init__(
        self,
        model: str,
        division: Division,
        lane: Backend,
        heads: Sequence[Head],
        pad_id: int,
        queue: TokenQueue[Entry],
        cost: CostModel,
        telemetry: Telemetry,
        on_broken: Callable[[], None],
    ) -> None:
        self._division = division
        self._lane = lane
        self._model = model
        self._heads = tuple(heads)
        self._pad_id = pad_id
        self._queue = queue
        self._cost = cost
        self._telemetry = telemetry
        self._on_broken = on_broken
        self._broken = False
        self._taking = threading.Lock()  # held from the choice of a batch until its inference begins
        self._turn = threading.Lock()  # held while the backend infers
        self._told = False
        self._telling = threading.Lock()
        self._free = threading.Event()
        self._free.set()
        self._busy_until_s = 0.0
        self._stuck_from_s = 0.0
        self._last_end_s = 0.0
        self._threads = [
            threading.Thread(target=self._run, name=f"worker-{model}-{index}", daemon=True) for index in range(THREADS)
        ]

    @property
    def alive(self) -> bool:
        """Whether batches are being run, and none of them hangs."""
        hangs = not self._free.is_set() and time.monotonic() >= self._stuck_from_s
        return not self._broken and not hangs and all(thread.is_alive() for thread in self._threads)

    @property
    def remaining_s(self) -> float:
        """How long the inference under way is expected to take still; 0 where nothing is known."""
        if self._free.is_set() or self._busy_until_s == math.inf:
            return 0.0
        return max(0.0, self._busy_until_s - time.monotonic())

    def start(self) -> None:
        """Begin to run batches."""
        self._last_end_s = time.monotonic()
        for thread in self._threads:
            thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the threads, whose queue must be closed; returns whether they have ended."""
        give_up_s = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, give_up_s - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        held: list[Entry] = []
        closed = False
        try:
            while not self._broken and self._run_next(held):
                held.clear()
            closed = not self._broken
        finally:
            # Nobody may be left hanging, whatever ended the thread.
            if not closed:
                self._break(held)

    def _break(self, held: Sequence[Entry]) -> None:
        self._broken = True
        with self._telling:
            is_first, self._told = not self._told, True
        try:
            if is_first:
                logger.critical("a worker of model %s ended unexpectedly", self._model)
                self._on_broken()
        finally:
            fail_entries(self._model, held)  # Last, so that whoever hears of it finds it true.

    def _run_next(self, held: list[Entry]) -> bool:
        """Run one batch; False once there is none.

        Args:
            held: Is given the entries that were taken from the queue.
        """
        with self._taking:
            self._wait_until_nearly_free()
            if self._broken:
                return False
            held.extend(self._queue.take(self._free.is_set))
            if not held:
                return False
            batch = self._collate(held)
            if not self._turn.acquire(timeout=PATIENCE_S):
                self._put_back(held)
                self._free.wait()
                return True
            self._expect(batch)
        # From here on the other thread may choose the batch after this one, as soon as this one is nearly done.
        try:
            if self._broken:
                self._put_back(held)
                return False
            ran = self._infer_wanted(held, batch)
        except BaseException:
            self._broken = True  # before the other thread gets its turn
            raise
        finally:
            self._free.set()
            self._turn.release()
        self._hand_out(ran)
        return True

    def _wait_until_nearly_free(self) -> None:
        while not self._free.is_set():
            left_s = self._busy_until_s - PREPARE_S - time.monotonic()
            if left_s <= 0 or self._free.wait(min(left_s, LONGEST_WAIT_S)):
                return

    def _put_back(self, held: list[Entry]) -> None:
        try:
            self._queue.put_back(held)
        except RuntimeError:  # It was closed.
            fail_entries(self._model, held)
        held.clear()

    def _expect(self, batch: Batch, lanes: int = 1) -> None:
        # While nothing was learned the other thread waits until the inference is over.
        expected_s = self._cost.cost.of_batch(int(batch.input_ids.size)) / lanes
        self._busy_until_s = time.monotonic() + (expected_s or math.inf)
        self._stuck_from_s = self._busy_until_s + max(STUCK_S, STUCK_FACTOR * expected_s)
        self._free.clear()

    def _infer_wanted(self, held: Sequence[Entry], batch: Batch) -> Inference | Failure | None:
        """Infer a batch without the entries that nobody waits for any more; None if that leaves none."""
        now_s = time.monotonic()
        entries = [entry for entry in held if not entry.is_abandoned(now_s)]
        if not entries:
            return None
        try:
            return self._infer(entries, batch if len(entries) == len(held) else self._collate(entries))
        except DeviceLostError:
            raise  # to try again would fail each time
        except Exception as error:  # noqa: BLE001 - it is told, and tried again, when the backend is free for others
            return Failure(entries, error)

    def _infer(self, entries: Sequence[Entry], batch: Batch) -> Inference:
        begin_s = time.monotonic()
        is_alone = len(entries) == 1 and len(entries[0].submission.results) == 1 and not self._queue.items
        with self._division.turn(self._lane, is_alone=is_alone) as (backend, lanes):
            self._expect(batch, lanes)
            logits = backend.infer(batch)
        end_s = time.monotonic()
        # What the backend stood idle for although these waited is part of what they cost.
        occupied_s = end_s - max(self._last_end_s, min(entry.enqueued_s for entry in entries))
        self._last_end_s = end_s
        return Inference(entries, logits, begin_s, end_s - begin_s, int(batch.input_ids.size), lanes * occupied_s)

    def _hand_out(self, ran: Inference | Failure | None) -> None:
        """Turn logits into scores, or run what failed again, one by one."""
        if ran is None:
            return
        try:
            if isinstance(ran, Failure):
                raise ran.error
            results = align(self._heads, [entry.encoded for entry in ran.entries], ran.logits)
        except Exception as error:
            if len(ran.entries) == 1:
                entry = ran.entries[0]
                # A copy, as another replica may be running in the request's own.
                entry.submission.context.copy().run(
                    logger.exception, "model %s failed on an input of %d tokens", self._model, entry.length_tokens
                )
                entry.settle(_as_service_error(error))
                return
            logger.exception("model %s failed on a batch of %d; running them one by one", self._model, len(ran.entries))
            for entry in ran.entries:
                self._hand_out(self._infer_again(entry))
            return
        self._telemetry.batch_done(ran.report(self._model, self._heads, results))
        ran.settle(results)
        # It takes a while until the callers are awake, so that this keeps none of them waiting.
        self._cost.observe(
            items=len(ran.entries),
            real_tokens=ran.real_tokens,
            padded_tokens=ran.padded_tokens,
            duration_s=ran.occupied_s,
        )
        self._queue.short_batch_tokens = self._cost.cost.short_batch_tokens
        self._queue.overhead_tokens = self._cost.cost.overhead_tokens

    def _infer_again(self, entry: Entry) -> Inference | Failure | None:
        """Infer one of a batch that failed, in turn with what the other thread has chosen in the meantime."""
        with self._turn:
            try:
                return self._infer_wanted([entry], self._collate([entry]))
            finally:
                self._free.set()

    def _collate(self, entries: Sequence[Entry]) -> Batch:
        return collate([entry.encoded for entry in entries], self._pad_id)


def fail_entries(model: str, entries: Sequence[Entry]) -> None:
    """Tell those who wait for entries that nobody will run them."""
    for entry in entries:
        entry.settle(ModelFailedError(f"the worker of model {model!r} ended before this item's turn"))


def _as_service_error(error: Exception) -> ServiceError:
    return error if isinstance(error, ServiceError) else ModelFailedError(f"the model failed: {type(error).__name__}")
