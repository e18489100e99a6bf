import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from reward_service.core.fair_share import JobPolicies, JobPolicy
from reward_service.core.token_queue import TokenQueue
from reward_service.errors import OverloadedError, PayloadTooLargeError, RateLimitedError


@dataclass(eq=False)
class Item:
    length_tokens: int
    name: str = ""
    deadline_s: float | None = None
    left: bool = False
    job: str = ""

    def is_abandoned(self, now_s: float) -> bool:
        return self.left or (self.deadline_s is not None and now_s >= self.deadline_s)


TIMEOUT_S = 20.0


def make_queue(
    max_items: int = 100,
    max_tokens: int = 1000,
    max_batch_tokens: int = 100,
    clock: float = 0.0,
    policies: JobPolicies | None = None,
    max_padding: float = 0.5,
) -> TokenQueue[Item]:
    return TokenQueue(
        max_items=max_items,
        max_tokens=max_tokens,
        max_batch_tokens=max_batch_tokens,
        max_padding=max_padding,
        policies=policies,
        clock=lambda: clock,
    )


def test_every_item_is_given_out_once_and_none_starves() -> None:
    rng = random.Random(1)
    queue = make_queue(max_items=10_000, max_tokens=10_000_000, max_batch_tokens=300)
    items = [Item(rng.randint(1, 120), str(i)) for i in range(1500)]
    queue.put(items)
    order: list[str] = []
    position = {item.name: i for i, item in enumerate(items)}
    batches = 0
    while queue.items:
        batch = queue.take()
        batches += 1
        order += [item.name for item in batch]
        oldest = min(position[item.name] for item in batch)
        assert oldest == min(set(position.values()) - {position[n] for n in order} | {oldest})
    assert sorted(order) == sorted(position)
    assert batches < 900
    assert queue.tokens == 0


def test_put_is_all_or_nothing() -> None:
    queue = make_queue(max_items=3)
    queue.put([Item(1), Item(1)])
    with pytest.raises(OverloadedError):
        queue.put([Item(1), Item(1)])
    assert (queue.items, queue.tokens) == (2, 2)
    queue.put([Item(1)])
    assert queue.items == 3


def test_tokens_are_bounded() -> None:
    queue = make_queue(max_tokens=100)
    queue.put([Item(60)])
    with pytest.raises(OverloadedError):
        queue.put([Item(41)])
    queue.put([Item(40)])


def test_what_never_fits_is_no_matter_of_load() -> None:
    with pytest.raises(PayloadTooLargeError):
        make_queue(max_tokens=100).put([Item(101)])
    with pytest.raises(PayloadTooLargeError):
        make_queue(max_items=1).put([Item(1), Item(1)])


def test_callers_who_left_cost_nothing() -> None:
    queue = make_queue(max_items=3, clock=5.0)
    gone, late, waits = Item(1, "gone"), Item(1, "late", deadline_s=4.9), Item(1, "waits", deadline_s=5.1)
    queue.put([gone, late, waits])
    gone.left = True
    assert [item.name for item in queue.take()] == ["waits"]
    assert (queue.items, queue.tokens) == (0, 0)


def test_callers_who_left_make_room() -> None:
    queue = make_queue(max_items=2)
    items = [Item(1), Item(1)]
    queue.put(items)
    items[0].left = True
    queue.put([Item(1, "new")])
    assert queue.items == 2


def test_take_waits_for_put() -> None:
    queue = make_queue()
    taken: list[list[Item]] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take()))
    thread.start()
    item = Item(1)
    queue.put([item])
    thread.join(10)
    assert taken == [[item]]


def test_close_wakes_the_taker_and_gives_back_what_is_left() -> None:
    queue = make_queue()
    taken: list[list[Item]] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take()))
    thread.start()
    assert queue.close() == []
    thread.join(10)
    assert taken == [[]]
    with pytest.raises(RuntimeError):
        queue.put([Item(1)])
    full = make_queue()
    left = [Item(1), Item(2)]
    full.put(left)
    assert full.close() == left
    assert full.take() == []


def test_a_job_that_comes_later_is_next() -> None:
    queue = make_queue(max_batch_tokens=20)
    queue.put([Item(10, f"flood {i}", job="flood") for i in range(50)])
    queue.take()
    queue.put([Item(10, "light", job="light")])
    assert "light" in [item.name for item in queue.take()]


def test_items_of_like_length_fill_the_batch_whosever_they_are() -> None:
    queue = make_queue()
    queue.put([Item(10, "a", job="a"), Item(50, "long", job="a")])
    queue.put([Item(11, "b", job="b"), Item(49, "long b", job="b")])
    assert {item.name for item in queue.take()} == {"a", "b"}


def test_a_higher_priority_goes_first_and_shares_no_batch() -> None:
    queue = make_queue(policies=JobPolicies(jobs={"urgent": JobPolicy(priority=1)}))
    queue.put([Item(10, "a", job="a")])
    queue.put([Item(10, "u", job="urgent")])
    assert [[item.name for item in queue.take()] for _ in range(2)] == [["u"], ["a"]]


def test_batches_are_short_while_jobs_contend() -> None:
    queue = make_queue()
    queue.short_batch_tokens = 20
    queue.put([Item(10, job="a") for _ in range(30)])
    assert len(queue.take()) == 10
    queue.put([Item(10, job="b")])
    # b goes alone: a has had its share for long. b may come again soon, so batches stay short.
    assert [len(queue.take()) for _ in range(3)] == [1, 2, 2]


def test_batches_are_padded_where_a_further_one_costs_more() -> None:
    queue = make_queue(max_padding=0.0)
    for overhead_tokens, sizes in ((0.0, [1, 1]), (100.0, [2])):
        queue.overhead_tokens = overhead_tokens
        queue.put([Item(10), Item(8)])
        assert [len(queue.take()) for _ in sizes] == sizes


def test_a_job_has_its_own_bound() -> None:
    queue = make_queue(policies=JobPolicies(jobs={"a": JobPolicy(max_queue_items=2)}))
    queue.put([Item(1, job="a"), Item(1, job="a")])
    with pytest.raises(RateLimitedError):
        queue.put([Item(1, job="a")])
    with pytest.raises(PayloadTooLargeError):
        queue.put([Item(1, job="a")] * 3)
    queue.put([Item(1, job="b")])


def test_places_are_kept_until_their_items_come() -> None:
    queue = make_queue(max_items=3)
    queue.reserve("a", 2)
    with pytest.raises(OverloadedError):
        queue.reserve("a", 2)
    queue.put([Item(1, job="a")], reserved=2)
    queue.reserve("a", 2)
    queue.release("a", 2)
    assert queue.items == 1
    queue.put([Item(1, job="a"), Item(1, job="a")])


def test_what_was_taken_and_not_run_is_next_again() -> None:
    queue = make_queue(max_batch_tokens=1)
    queue.put([Item(1, "a"), Item(1, "b")])
    taken = queue.take()
    queue.put_back(taken)
    assert (queue.items, queue.tokens) == (2, 2)
    assert queue.take() == taken
    queue.close()
    with pytest.raises(RuntimeError):
        queue.put_back(taken)


def test_nobody_pays_for_what_was_put_back() -> None:
    queue = make_queue(max_batch_tokens=10)
    queue.put([Item(10, "a", job="a")])
    queue.put([Item(10, "b", job="b")])
    for _ in range(3):
        taken = queue.take()
        assert [item.name for item in taken] == ["a"]
        queue.put_back(taken)


def test_the_work_until_a_job_is_done_is_what_its_share_lets_in_between() -> None:
    queue = make_queue(policies=JobPolicies(jobs={"b": JobPolicy(weight=2.0), "c": JobPolicy(priority=-1)}))
    for job, tokens in (("a", 30), ("b", 80), ("c", 100)):
        queue.put([Item(tokens, job=job)])
    assert queue.tokens_until_done("a", 10) == 40 + 80  # b may have twice as much in between, all it has.
    assert queue.tokens_until_done("a", 0) == 30 + 60
    assert queue.tokens_until_done("b", 0) == 80 + 30
    assert queue.tokens_until_done("c", 0) == 100 + 30 + 80, "a lower priority waits for all the others"


@pytest.mark.parametrize(
    ("overhead_tokens", "sizes"), [(0.0, [8, 4, 2, 1, 1]), (30.0, [8, 4, 3, 1]), (80.0, [8, 8]), (1000.0, [10, 6])]
)
def test_several_takers_divide_what_is_too_little_for_a_batch_each(overhead_tokens: float, sizes: list[int]) -> None:
    """Half of what is left in each turn of two, but no less than what it costs to begin a batch."""
    queue = make_queue()
    queue.takers, queue.overhead_tokens = 2, overhead_tokens
    queue.put([Item(10) for _ in range(16)])
    taken = []
    while queue.items:
        taken.append(len(queue.take()))
    assert taken == sizes


def test_who_could_not_run_a_batch_at_once_leaves_it_to_who_can(until: Callable[[Callable[[], bool]], None]) -> None:
    queue = make_queue(max_batch_tokens=10)
    idle: dict[str, bool] = {"busy": False, "free": True}
    taken: list[tuple[str, str]] = []

    def take(taker: str) -> None:
        taken.append((taker, queue.take(lambda: idle[taker])[0].name))

    for round_ in range(20):
        # The busy one waits first, and is busy or has just become idle while the other was not there.
        threads = {name: threading.Thread(target=take, args=(name,)) for name in ("busy", "free")}
        threads["busy"].start()
        threads["free"].start()
        until(lambda: len(queue._takers) == 2)
        queue.put([Item(10, "first")])
        threads["free"].join(TIMEOUT_S)
        assert taken[2 * round_ :] == [("free", "first")]
        queue.put([Item(10, "second")])
        threads["busy"].join(TIMEOUT_S)
        assert taken[2 * round_ + 1 :] == [("busy", "second")]


def test_who_waits_does_an_errand_and_takes_what_that_puts(until: Callable[[Callable[[], bool]], None]) -> None:
    queue = make_queue()
    done: list[str] = []
    assert not queue.send(lambda: done.append("nobody waits"))
    taken: list[list[Item]] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take()), name="taker")
    thread.start()
    until(lambda: len(queue._takers) == 1)

    def errand() -> None:
        done.append(threading.current_thread().name)
        assert not queue.send(lambda: done.append("a second one"))
        queue.put([Item(1, "a")])
        assert not queue.send(lambda: done.append("something waits"))

    assert queue.send(errand)
    thread.join(TIMEOUT_S)
    assert done == ["taker"]
    assert [[item.name for item in batch] for batch in taken] == [["a"]]
    queue.close()
    assert not queue.send(lambda: done.append("closed"))
    assert done == ["taker"]


def test_an_errand_is_done_although_the_queue_closes(until: Callable[[Callable[[], bool]], None]) -> None:
    queue = make_queue()
    done: list[str] = []
    thread = threading.Thread(target=queue.take)
    thread.start()
    until(lambda: len(queue._takers) == 1)

    def errand() -> None:
        queue.close()  # While it is under way.
        with pytest.raises(RuntimeError, match="closed"):
            queue.put([Item(1, "a")])
        done.append("done")

    assert queue.send(errand)
    thread.join(TIMEOUT_S)
    assert done == ["done"]


def test_what_comes_while_nobody_is_idle_goes_to_who_asks() -> None:
    queue = make_queue(max_batch_tokens=10)
    queue.put([Item(10, "a"), Item(10, "b")])
    assert [queue.take(lambda: False)[0].name for _ in range(2)] == ["a", "b"]


def test_nothing_is_left_while_all_sleep_whoever_becomes_idle_or_busy_meanwhile() -> None:
    queue = make_queue(max_batch_tokens=10, max_items=5000, max_tokens=50_000)
    idle = [True] * 4
    given = threading.Semaphore(0)
    taken: list[str] = []

    def run(me: int) -> None:
        rng = random.Random(me)
        while batch := queue.take(lambda: idle[me]):
            taken.extend(item.name for item in batch)
            idle[rng.randrange(4)] = rng.random() < 0.5
            given.release()

    threads = [threading.Thread(target=run, args=(me,), daemon=True) for me in range(4)]
    for thread in threads:
        thread.start()
    for number in range(1500):
        queue.put([Item(10, str(number))] if number % 3 else [Item(10, str(number)), Item(10, f"{number} too")])
        idle[:] = [not each for each in idle]  # Whoever was woken may have no time when it gets there.
        if number % 3 < 2:
            assert given.acquire(timeout=TIMEOUT_S), "all sleep while something waits"
    for _ in range(1000):
        assert given.acquire(timeout=TIMEOUT_S)
    assert len(set(taken)) == len(taken) == 2000
    queue.close()
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
