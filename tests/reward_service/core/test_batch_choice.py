import random

import pytest

from reward_service.core.batch_choice import choose_batch


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


def test_padding_that_costs_less_than_another_batch_is_taken() -> None:
    # 10 tokens in the time of 10 + o, or 18 in that of 20 + o: the less a token from o > 2.5 on.
    assert choose_batch([10, 8], 1000, 0.0, overhead_tokens=2.0) == [0]
    assert choose_batch([10, 8], 1000, 0.0, overhead_tokens=3.0) == [0, 1]
    # 8 in 8 + o, or 18 in 20 + o: from o > 1.6 on.
    assert choose_batch([8, 10], 1000, 0.0, overhead_tokens=1.5) == [0]
    assert choose_batch([8, 10], 1000, 0.0, overhead_tokens=1.7) == [1, 0]
    assert choose_batch([10, 8], 19, 0.0, overhead_tokens=1e9) == [0], "the budget holds all the same"


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


def test_an_owner_has_no_more_than_it_is_allowed() -> None:
    owners = ["a", "b", "b", "b", "a"]
    allowed = {"a": 100.0, "b": 25.0}
    assert choose_batch([10] * 5, 100, 0.0, owners, allowed.__getitem__) == [0, 1, 2, 4]


def test_a_longer_item_is_not_taken_beyond_what_its_owner_is_allowed() -> None:
    assert choose_batch([10, 12, 11], 100, 0.5, ["a", "b", "b"], lambda owner: 11.5) == [2, 0]


def test_the_first_item_is_taken_whatever_its_owner_is_allowed() -> None:
    assert choose_batch([10, 10], 100, 0.0, ["a", "a"], lambda owner: 0.0) == [0]


def test_nobody_is_charged_beyond_what_it_is_allowed_for_the_length_of_anothers_item() -> None:
    owners, allowed = ["a", "c", "c", "b"], {"a": 1000.0, "b": 1000.0, "c": 25.0}
    lengths = [10, 10, 10, 100]
    assert choose_batch(lengths, 1000, 0.0, owners, allowed.__getitem__, overhead_tokens=1e6) == [0, 1, 2]
    allowed["c"] = 200.0
    assert choose_batch(lengths, 1000, 0.0, owners, allowed.__getitem__, overhead_tokens=1e6) == [3, 0, 1, 2]
