import random
import threading
from dataclasses import dataclass

import pytest

from reward_service.core.token_queue import TokenQueue, choose_batch
from reward_service.errors import OverloadedError, PayloadTooLargeError


@dataclass(eq=False)
class Item:
    length_tokens: int
    name: str = ""
    deadline_s: float | None = None
    left: bool = False

    def is_abandoned(self, now_s: float) -> bool:
        return self.left or (self.deadline_s is not None and now_s >= self.deadline_s)


def make_queue(
    max_items: int = 100, max_tokens: int = 1000, max_batch_tokens: int = 100, clock: float = 0.0
) -> TokenQueue[Item]:
    return TokenQueue(
        max_items=max_items,
        max_tokens=max_tokens,
        max_batch_tokens=max_batch_tokens,
        max_padding=0.5,
        clock=lambda: clock,
    )


def test_cost_is_longest_times_items() -> None:
    assert choose_batch([10, 10, 10, 10], 30, 0.0) == [0, 1, 2]
    assert choose_batch([10, 10, 10, 10], 29, 0.0) == [0, 1]
    assert choose_batch([10, 15, 10], 30, 0.9) == [0, 2], "15 x 2 fits as well, but 10 x 3 wastes nothing"


def test_a_longer_item_than_the_budget_runs_alone() -> None:
    assert choose_batch([500, 10, 500], 100, 0.9) == [0]


def test_neighbours_in_length_are_taken_first() -> None:
    lengths = [50, 10, 48, 90, 52]
    assert choose_batch(lengths, 160, 0.5) == [4, 0, 2], "longest first; 10 and 90 would cost more padding"


def test_padding_is_bounded() -> None:
    assert choose_batch([10, 90], 1000, 0.4) == [0], "80 of 180 tokens would be padding"
    assert choose_batch([10, 90], 1000, 0.5) == [1, 0]


def test_equal_lengths_run_in_order_of_arrival() -> None:
    assert choose_batch([7] * 6, 7 * 4, 0.0) == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(20))
def test_properties_of_any_choice(seed: int) -> None:
    rng = random.Random(seed)
    lengths = [rng.randint(1, 200) for _ in range(rng.randint(1, 80))]
    budget, padding = rng.randint(50, 2000), rng.random() * 0.9
    chosen = choose_batch(lengths, budget, padding)
    taken = [lengths[i] for i in chosen]
    assert 0 in chosen, "the oldest item never waits for a later batch"
    assert len(set(chosen)) == len(chosen)
    assert taken == sorted(taken, reverse=True)
    if len(chosen) > 1:
        assert max(taken) * len(taken) <= budget
        assert max(taken) * len(taken) - sum(taken) <= padding * max(taken) * len(taken)


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
