import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from reward_proto.models import ModelKind
from reward_service.backends.fake_backend import FakeBackend
from reward_service.core.backend import Backend, DeviceLostError
from reward_service.core.division import Division
from reward_service.core.token_queue import TokenQueue
from reward_service.core.worker import BatchReport, Entry, Submission, Worker
from reward_service.domain import Batch, Encoded, Head, ItemScore, Read, Span
from reward_service.errors import ModelFailedError, OverloadedError

HEAD = Head(ModelKind.SEQUENCE_REGRESSION)
POISON = 6
"""A token on which the scripted backend fails."""

TIMEOUT_S = 20.0


class Recorder:
    def __init__(self) -> None:
        self.reports: list[BatchReport] = []

    def batch_done(self, report: BatchReport) -> None:
        self.reports.append(report)

    def encoded(self, model: str, tokenize_s: float, truncated: int) -> None:
        raise AssertionError("the worker does not tokenize")


def item(*ids: int) -> Encoded:
    return Encoded(np.array(ids, dtype=np.int64), (Read(np.zeros(0, dtype=np.int64), (Span(0, 1),)),))


def expected(*ids: int) -> float:
    """The fake backend's score: the last token's id modulo 7, in sevenths."""
    return float(np.float32(ids[-1] % 7 / 7))


class Rig:
    """A worker on a fake backend that the test may hold or break, or on another one."""

    def __init__(
        self, before: Callable[[Batch], None] | None = None, max_items: int = 100, backend: Backend | None = None
    ) -> None:
        self.telemetry = Recorder()
        queue: TokenQueue[Entry] = TokenQueue(
            max_items=max_items, max_tokens=1000, max_batch_tokens=100, max_padding=0.9
        )
        backend = backend or FakeBackend(HEAD, before=before)
        self.worker = Worker("m", [Division(backend)], [HEAD], 0, queue, self.telemetry)

    def submit(self, *inputs: Encoded, deadline_s: float | None = None) -> tuple[Submission, threading.Event]:
        done = threading.Event()
        submission = Submission(len(inputs), deadline_s, done.set)
        self.worker.submit(submission, list(enumerate(inputs)))
        return submission, done

    def results(self, *inputs: Encoded) -> list[float | str]:
        submission, done = self.submit(*inputs)
        assert done.wait(TIMEOUT_S)
        found = [r[0] if isinstance(r, tuple) else r for r in submission.results]
        return [r.sequence_score if isinstance(r, ItemScore) else type(r).__name__ for r in found]  # type: ignore[misc]


class Divided(FakeBackend):
    """One whose batches run on two lanes, or on `whole`."""

    def __init__(self, whole: Backend, *lanes: Backend) -> None:
        self.runtime = whole.runtime
        self._whole = whole
        self._lanes = lanes

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        return self._whole.infer(batch)

    def lanes(self) -> Sequence[Backend]:
        return self._lanes


@pytest.fixture
def rigs() -> Iterator[list[Rig]]:
    made: list[Rig] = []
    yield made
    for rig in made:
        rig.worker.close(TIMEOUT_S)


def fail_on_poison(batch: Batch) -> None:
    if (batch.input_ids == POISON).any():
        raise ValueError("cannot run this")


def test_each_item_gets_its_own_score_whatever_its_place_in_the_batch(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig())
    rig.worker.start()
    assert rig.results(item(1), item(9, 9, 2), item(3, 4)) == [expected(1), expected(2), expected(4)]


def test_items_of_different_requests_share_a_batch(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig())
    first, second = rig.submit(item(1), item(2)), rig.submit(item(3))
    rig.worker.start()
    for submission, done in (first, second):
        assert done.wait(TIMEOUT_S)
        assert all(isinstance(result, tuple) and isinstance(result[0], ItemScore) for result in submission.results)
    assert [report.items for report in rig.telemetry.reports] == [3]


def test_a_poisoned_item_fails_alone_and_the_worker_lives_on(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(fail_on_poison))
    rig.worker.start()
    assert rig.results(item(1), item(POISON), item(3)) == [expected(1), "ModelFailedError", expected(3)]
    assert rig.worker.alive
    assert rig.results(item(2)) == [expected(2)]


def test_nan_fails_its_item_alone(rigs: list[Rig]) -> None:
    class NanBackend(FakeBackend):
        def infer(self, batch: Batch) -> NDArray[np.float32]:
            logits = super().infer(batch)
            logits[(batch.input_ids == POISON).any(axis=1)] = np.nan
            return logits

    rigs.append(rig := Rig(backend=NanBackend(HEAD)))
    rig.worker.start()
    assert rig.results(item(POISON), item(3)) == ["ModelFailedError", expected(3)]
    assert len(rig.telemetry.reports) == 1, "the neighbours need no second run"


@pytest.mark.parametrize("cause", [SystemExit, DeviceLostError])
def test_a_dead_worker_is_not_alive_and_leaves_nobody_hanging(
    rigs: list[Rig], monkeypatch: pytest.MonkeyPatch, cause: type[BaseException]
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def die(_: Batch) -> None:
        raise cause

    rigs.append(rig := Rig(die))
    # 60 + 60 tokens do not fit one batch: the second waits in the queue when the first one kills the thread.
    first, second = rig.submit(item(*[1] * 60)), rig.submit(item(*[2] * 60))
    rig.worker.start()
    for submission, done in (first, second):
        assert done.wait(TIMEOUT_S)
        assert isinstance(submission.results[0], ModelFailedError)
    rig.worker.close(TIMEOUT_S)
    assert not rig.worker.alive
    with pytest.raises(ModelFailedError, match="has ended"):
        rig.submit(item(1))


def test_abandoned_work_is_not_computed(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig())
    gone, _ = rig.submit(item(1))
    gone.abandoned = True
    rig.submit(item(2), deadline_s=time.monotonic() - 1)
    waits, done = rig.submit(item(3))
    rig.worker.start()
    assert done.wait(TIMEOUT_S)
    assert gone.results == [None]
    assert waits.padded_tokens == 1
    assert sum(report.items for report in rig.telemetry.reports) == 1


def test_the_report_counts_real_and_padded_tokens(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig())
    submission, done = rig.submit(item(1, 1, 1, 1), item(2))
    rig.worker.start()
    assert done.wait(TIMEOUT_S)
    (report,) = rig.telemetry.reports
    assert (report.model, report.items, report.real_tokens, report.padded_tokens) == ("m", 2, 5, 8)
    assert report.scores == (("m", (expected(1), expected(2))),)
    assert submission.padded_tokens == 8
    assert submission.queue_s == max(report.queue_s) >= 0
    assert submission.inference_s == report.inference_s > 0


def test_a_full_queue_refuses(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(max_items=1))
    rig.submit(item(1))
    with pytest.raises(OverloadedError):
        rig.submit(item(1))


def test_close_fails_what_waits(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig())
    submission, done = rig.submit(item(1))
    rig.worker.close(TIMEOUT_S)
    assert done.is_set()
    assert isinstance(submission.results[0], ModelFailedError)


def test_the_wait_is_estimated_from_the_measured_speed(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig())
    assert rig.worker.estimated_wait_s == 0
    rig.worker.start()
    rig.results(item(*[1] * 50))
    (report,) = rig.telemetry.reports
    rig.worker.close(TIMEOUT_S)
    # The time that it waited for the idle backend counts as well.
    assert report.inference_s / 50 <= rig.worker.cost.cost.token_s < TIMEOUT_S / 50


def test_warm_up_checks_that_the_output_fits_the_head() -> None:
    Rig().worker.warm_up()
    wrong = FakeBackend(Head(ModelKind.SEQUENCE_CLASSIFICATION, ("ok", "bad"), "ok"))
    for backend in (wrong, Divided(wrong, FakeBackend(HEAD)), Divided(FakeBackend(HEAD), wrong)):
        with pytest.raises(ModelFailedError, match="logits"):
            Rig(backend=backend).worker.warm_up()


def test_replicas_run_side_by_side_from_one_queue_and_survive_each_other(
    rigs: list[Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    together = threading.Barrier(2)

    def meet(batch: Batch) -> None:
        if not (batch.input_ids == 1).any():
            together.wait(TIMEOUT_S)

    def meet_or_die(batch: Batch) -> None:
        if (batch.input_ids == POISON).any():
            raise SystemExit
        meet(batch)

    rigs.append(rig := Rig())
    queue: TokenQueue[Entry] = TokenQueue(max_items=100, max_tokens=1000, max_batch_tokens=1, max_padding=0.0)
    backends = [FakeBackend(HEAD, before=meet_or_die) for _ in range(2)]
    rig.worker = Worker("m", [*map(Division, backends)], [HEAD], 0, queue, rig.telemetry)
    rig.worker.start()
    assert rig.results(item(2), item(3)) == [expected(2), expected(3)], "each waits for the other"
    assert rig.results(item(POISON)) == ["ModelFailedError"]
    assert not rig.worker.alive
    assert queue.takers == 1
    assert rig.results(item(1)) == [expected(1)], "the other replica goes on"
    assert rig.results(item(POISON)) == ["ModelFailedError"]
    rig.worker.close(TIMEOUT_S)
    with pytest.raises(ModelFailedError, match="has ended"):
        rig.submit(item(1))


def test_the_items_of_a_request_run_on_lanes_side_by_side_and_a_lone_one_on_the_whole(
    rigs: list[Rig], until: Callable[[Callable[[], bool]], None]
) -> None:
    together = threading.Barrier(2)
    ran: list[tuple[str, int]] = []

    def on(name: str, meet: bool = False) -> FakeBackend:
        def before(batch: Batch) -> None:
            ran.append((name, len(batch.input_ids)))
            if meet:
                together.wait(TIMEOUT_S)

        return FakeBackend(HEAD, before=before)

    rigs.append(rig := Rig(backend=Divided(on("whole"), on("one", meet=True), on("two", meet=True))))
    rig.worker.start()
    assert rig.results(item(1)) == [expected(1)]
    assert ran == [("whole", 1)]
    until(lambda: len(rig.worker.queue._takers) == 2)
    assert rig.results(item(2), item(3)) == [expected(2), expected(3)], "each waits for the other"
    assert sorted(ran[1:]) == [("one", 1), ("two", 1)]
    cost = rig.worker.cost.cost
    assert rig.worker.wait_s("", 2)[1] == pytest.approx(cost.of_queue(2 * cost.item_tokens, 100) / 2)


def test_a_jobs_wait_is_its_share_of_the_queue(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig())
    rig.worker.cost.observe(items=2, real_tokens=20, padded_tokens=20, duration_s=2.0)  # 0.1 s a token, 10 an item
    rig.submit(*[item(*[1] * 10)] * 5)
    assert rig.worker.wait_s("", 1) == (0.0, 0.0), "not started: nobody runs it"


@pytest.mark.parametrize(
    ("busy_s", "wait_s"),
    [
        ([0.0, 10.0], 6.0),  # The idle one does it all before the other is free.
        ([0.0, 2.0], 4.0),  # 2 s of it alone, the rest together.
        ([1.0, 3.0, 99.0], 5.0),
        ([1.0], 7.0),
    ],
)
def test_replicas_begin_when_they_are_free_and_end_together(busy_s: list[float], wait_s: float) -> None:
    worker = Rig().worker
    worker.cost.observe(items=2, real_tokens=20, padded_tokens=20, duration_s=2.0)  # 0.1 s a token, 10 an item
    worker.replicas = tuple(SimpleNamespace(alive=True, remaining_s=each) for each in busy_s)  # type: ignore[misc]
    assert worker.wait_s("", 6) == (pytest.approx(wait_s), pytest.approx(6.0 / len(busy_s)))
