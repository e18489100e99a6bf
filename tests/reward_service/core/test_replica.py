"""Two threads on one backend that the test holds: what is chosen when, and what becomes of it."""

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from reward_proto.models import ModelKind
from reward_service.backends.fake_backend import FakeBackend
from reward_service.core.cost_model import CostModel
from reward_service.core.division import Division
from reward_service.core.replica import Replica
from reward_service.core.submission import Entry, Submission
from reward_service.core.telemetry import BatchReport
from reward_service.core.token_queue import TokenQueue
from reward_service.domain import Batch, Encoded, Head, ItemScore, Read, Span
from reward_service.errors import ModelFailedError

HEAD = Head(ModelKind.SEQUENCE_REGRESSION)
TIMEOUT_S = 20.0


class Divided(FakeBackend):
    def lanes(self) -> list[FakeBackend]:
        return [FakeBackend(HEAD), FakeBackend(HEAD)]


class Rig:
    """A replica whose backend waits for `release` in each inference; batches hold one item of 4 tokens."""

    def __init__(self, predicted_s: float = 0.0, batch_items: int = 1, is_divided: bool = False) -> None:
        self.queue: TokenQueue[Entry] = TokenQueue(
            max_items=100, max_tokens=999, max_batch_tokens=4 * batch_items, max_padding=0.5
        )
        self.entered = threading.Semaphore(0)
        self.release = threading.Semaphore(0)
        self.sizes: list[tuple[int, ...]] = []
        self.deadly = False
        self.reports: list[BatchReport] = []
        self.broken = threading.Event()
        self.cost = CostModel()
        if predicted_s:
            self.cost.observe(items=1, real_tokens=4, padded_tokens=4, duration_s=predicted_s)
        division = Division((Divided if is_divided else FakeBackend)(HEAD, before=self.hold))
        lane = division.lanes[0]
        self.replica = Replica("m", division, lane, [HEAD], 0, self.queue, self.cost, self, self.broken.set)

    def hold(self, batch: Batch) -> None:
        self.sizes.append(batch.input_ids.shape)
        self.entered.release()
        assert self.release.acquire(timeout=TIMEOUT_S)
        if self.deadly:
            raise SystemExit
        if len(batch.input_ids) > 1:
            raise ValueError("fails together")

    def batch_done(self, report: BatchReport) -> None:
        self.reports.append(report)

    def encoded(self, model: str, tokenize_s: float, truncated: int) -> None:
        raise AssertionError("a replica does not tokenize")

    def put(self, job: str = "", items: int = 1) -> tuple[Submission, threading.Event]:
        done = threading.Event()
        submission = Submission(items, None, done.set, job)
        read = Read(np.zeros(0, dtype=np.int64), (Span(0, 1),))
        encoded = Encoded(np.full(4, 3, dtype=np.int64), (read,))
        self.queue.put([Entry(encoded, submission, index, 0.0) for index in range(items)])
        return submission, done

    def until_infers(self) -> None:
        assert self.entered.acquire(timeout=TIMEOUT_S)

    def until_items(self, items: int) -> None:
        self.until(lambda: self.queue.items == items)

    def until(self, holds: Callable[[], bool]) -> None:
        for _ in range(int(TIMEOUT_S / 0.001)):
            if holds():
                return
            threading.Event().wait(0.001)
        raise AssertionError(f"{self.queue.items} items wait, alive: {self.replica.alive}")

    def go_on(self) -> None:
        for _ in range(100):
            self.release.release()


@pytest.fixture
def rigs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Rig]]:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    made: list[Rig] = []
    yield made
    for rig in made:
        rig.queue.close()
        rig.go_on()
        rig.replica.join(TIMEOUT_S)


def test_the_next_batch_is_chosen_when_the_backend_is_nearly_free(rigs: list[Rig]) -> None:
    """The inference is expected to take no time, so that the next batch is chosen at once, and no third one."""
    rigs.append(rig := Rig(predicted_s=1e-6))
    rig.put(items=3)
    rig.replica.start()
    rig.until_infers()
    rig.until_items(1)
    rig.release.release()
    rig.until_infers()
    rig.until_items(0)
    assert len(rig.sizes) == 2, "the third batch waits for its turn"


@pytest.mark.parametrize("predicted_s", [0.0, 1000.0])
def test_nothing_is_chosen_while_the_backend_is_busy_for_long(rigs: list[Rig], predicted_s: float) -> None:
    """Neither where nothing is known of it. So a job that comes in the meantime is next."""
    rigs.append(rig := Rig(predicted_s))
    rig.put("flood", items=5)
    rig.replica.start()
    rig.until_infers()
    light, done = rig.put("light")
    assert rig.queue.items == 5
    rig.release.release()
    rig.until_infers()
    rig.release.release()
    assert done.wait(TIMEOUT_S)
    assert isinstance(light.results[0], tuple)


@pytest.mark.parametrize(("predicted_s", "is_alive"), [(1e-6, False), (1000.0, True), (0.0, True)])
def test_a_hung_inference_counts_as_dead_until_it_is_over(
    rigs: list[Rig], monkeypatch: pytest.MonkeyPatch, predicted_s: float, is_alive: bool
) -> None:
    """One that may take as long does not, nor one of which nothing is known."""
    monkeypatch.setattr("reward_service.core.replica.STUCK_S", 0.01)
    rigs.append(rig := Rig(predicted_s))
    rig.replica.start()
    _, done = rig.put()
    rig.until_infers()
    threading.Event().wait(0.05)
    assert rig.replica.alive is is_alive
    rig.release.release()
    assert done.wait(TIMEOUT_S)
    rig.until(lambda: rig.replica.alive)


def test_an_inference_that_is_a_little_late_is_not_hung(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(predicted_s=1e-6))
    rig.replica.start()
    rig.put()
    rig.until_infers()
    threading.Event().wait(0.05)
    assert rig.replica.alive


def test_what_is_abandoned_after_it_was_chosen_is_not_computed(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(predicted_s=1e-6))
    rig.put()
    gone, _ = rig.put()
    rig.replica.start()
    rig.until_infers()
    rig.until_items(0)  # The second is chosen.
    gone.abandoned = True
    _, done = rig.put()
    rig.go_on()
    assert done.wait(TIMEOUT_S)
    assert gone.results == [None]
    assert len(rig.sizes) == 2


def test_a_broken_replica_gives_back_what_it_has_not_begun(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(predicted_s=1e-6))
    rig.deadly = True
    failed, failed_done = rig.put()
    _, waiting_done = rig.put("other")
    rig.replica.start()
    rig.until_infers()
    rig.until_items(0)
    rig.release.release()
    assert failed_done.wait(TIMEOUT_S)
    assert rig.broken.wait(TIMEOUT_S)
    assert isinstance(failed.results[0], ModelFailedError)
    rig.until_items(1)
    assert not waiting_done.is_set()
    assert not rig.replica.alive
    assert len(rig.sizes) == 1


def test_the_queue_is_told_what_a_batch_costs_beside_its_tokens(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig())
    for tokens in (100, 300, 200, 500, 400) * 8:
        rig.cost.observe(items=1, real_tokens=tokens, padded_tokens=tokens, duration_s=10.0 + 0.1 * tokens)
    _, done = rig.put("a")
    rig.replica.start()
    rig.go_on()
    assert done.wait(TIMEOUT_S)
    assert rig.queue.overhead_tokens == rig.cost.cost.overhead_tokens > 0


def test_the_cost_is_learned_and_told_by_job(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig())
    submission, done = rig.put("a")
    rig.replica.start()
    assert rig.cost.cost.token_s == 0
    rig.go_on()
    assert done.wait(TIMEOUT_S)
    assert rig.cost.cost.token_s > 0
    assert rig.queue.short_batch_tokens is not None
    (result,) = submission.results
    assert isinstance(result, tuple)
    assert isinstance(result[0], ItemScore)
    assert [report.jobs for report in rig.reports] == [(("a", 4),)]
    assert rig.replica.remaining_s == 0


def test_what_waits_for_a_backend_that_does_not_become_free_goes_back(
    rigs: list[Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reward_service.core.replica.PATIENCE_S", 0.01)
    rigs.append(rig := Rig(predicted_s=1e-6))
    put_back, is_back = rig.queue.put_back, threading.Event()

    def notice(entries: Sequence[Entry]) -> None:
        put_back(entries)
        is_back.set()

    monkeypatch.setattr(rig.queue, "put_back", notice)
    rig.put()
    rig.replica.start()
    rig.until_infers()
    waits, done = rig.put()
    assert is_back.wait(TIMEOUT_S)
    (entry,) = rig.queue.take()
    assert entry.submission is waits, "another replica may have it"
    rig.queue.put_back([entry])
    rig.go_on()
    assert done.wait(TIMEOUT_S), "and so may this one when it is free"


def test_a_backend_is_busy_while_it_runs_again_what_failed(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(predicted_s=1000.0, batch_items=2))
    _, done = rig.put(items=2)
    rig.replica.start()
    for _ in range(3):
        rig.until_infers()
        assert rig.replica.remaining_s > 0
        rig.release.release()
    assert done.wait(TIMEOUT_S)
    assert [rows for rows, _ in rig.sizes] == [2, 1, 1]
    assert rig.replica.remaining_s == 0


def test_what_runs_on_all_lanes_is_expected_to_take_less_by_their_number(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(predicted_s=1000.0, is_divided=True))
    rig.put()
    rig.replica.start()
    rig.until_infers()
    assert 250 < rig.replica.remaining_s <= 500
