import random

import pytest
from scipy.stats import linregress

from reward_service.core.cost_model import SURE_ERRORS, CostModel

A_S, B_S = 2e-4, 5e-3


def taught(sizes: list[int], a_s: float = A_S, b_s: float = B_S, noise: float = 0.0) -> CostModel:
    rng = random.Random(0)
    model = CostModel()
    for size in sizes:
        duration_s = (a_s * size + b_s) * (1 + rng.uniform(-noise, noise))
        model.observe(items=4, real_tokens=size // 2, padded_tokens=size, duration_s=duration_s)
    return model


def sizes(count: int) -> list[int]:
    rng = random.Random(1)
    return [2 * rng.randint(10, 1000) for _ in range(count)]


def test_nothing_is_known_at_first() -> None:
    cost = CostModel().cost
    assert (cost.of_batch(1000), cost.of_queue(1000, 100), cost.short_batch_tokens) == (0.0, 0.0, None)


def test_it_finds_what_the_batches_were_made_of() -> None:
    cost = taught(sizes(20)).cost
    assert (cost.token_s, cost.batch_s) == pytest.approx((A_S, B_S), rel=1e-6)
    assert cost.padding == pytest.approx(2.0)
    assert cost.of_batch(1000) == pytest.approx(0.205)
    # 5,000 real tokens are 10,000 padded ones in 5 batches.
    assert cost.of_queue(5000, 2000) == pytest.approx(10_000 * A_S + 5 * B_S)
    # An item is a batch of its own where it is longer than the bound.
    assert cost.of_queue(5000, 1) == pytest.approx(10_000 * A_S + 10_000 / cost.item_tokens * B_S)


def test_noise_does_not_carry_it_away() -> None:
    cost = taught(sizes(200), noise=0.1).cost
    assert cost.token_s == pytest.approx(A_S, rel=0.1)
    assert cost.of_batch(1500) == pytest.approx(1500 * A_S + B_S, rel=0.05)


def test_it_forgets() -> None:
    model = taught(sizes(100))
    for size in sizes(300):
        model.observe(items=4, real_tokens=size, padded_tokens=size, duration_s=3 * A_S * size + B_S)
    assert model.cost.token_s == pytest.approx(3 * A_S, rel=0.01)
    assert model.cost.padding == pytest.approx(1.0, rel=0.01)


def test_one_batch_during_which_the_machine_stood_still_changes_little() -> None:
    model = taught(sizes(100))
    model.observe(items=4, real_tokens=500, padded_tokens=1000, duration_s=116.0)
    # It counts as ten times what was expected, with the weight of one of 44: (1 - .98^101) / .02.
    assert model.cost.of_batch(1000) == pytest.approx(0.205 * (1 + 9 / 43.5), rel=0.05)
    for size in sizes(150):
        model.observe(items=4, real_tokens=500, padded_tokens=size, duration_s=A_S * size + B_S)
    assert model.cost.of_batch(1000) == pytest.approx(0.205, rel=0.02)


def test_a_machine_that_has_become_far_slower_is_believed() -> None:
    model = taught(sizes(100))
    for size in sizes(400):
        model.observe(items=4, real_tokens=500, padded_tokens=size, duration_s=100 * (A_S * size + B_S))
    assert model.cost.of_batch(1000) == pytest.approx(20.5, rel=0.02)


def test_batches_of_one_size_cost_their_tokens() -> None:
    cost = taught([1000] * 10).cost
    assert (cost.token_s, cost.batch_s) == pytest.approx((A_S + B_S / 1000, 0.0))


def test_a_batch_that_costs_nothing_by_itself_is_never_negative() -> None:
    model = CostModel()
    for size, duration_s in ((100, 0.1), (200, 0.3), (300, 0.5)):
        model.observe(items=1, real_tokens=size, padded_tokens=size, duration_s=duration_s)
    assert model.cost.batch_s == 0.0
    assert model.cost.token_s > 0


def test_a_device_that_is_not_full_costs_batches_only() -> None:
    cost = taught(sizes(20), a_s=0.0).cost
    assert cost.of_batch(1) == pytest.approx(B_S, rel=1e-3)
    assert cost.of_batch(2000) == pytest.approx(B_S, rel=1e-3)


def test_what_a_batch_costs_is_told_in_tokens() -> None:
    assert taught(sizes(20)).cost.overhead_tokens == pytest.approx(25.0)  # 5 ms / 0.2 ms
    assert taught(sizes(20), b_s=0.0).cost.overhead_tokens == pytest.approx(0.0, abs=1e-3)


def test_of_what_a_batch_costs_only_the_sure_part_counts() -> None:
    assert taught([1000] * 10).cost.overhead_tokens == 0.0, "all of one size"
    assert taught([1000, 20]).cost.overhead_tokens == 0.0, "a line goes through any two points"
    assert taught(sizes(200), noise=0.5).cost.overhead_tokens == 0.0, "100 ms of noise hide 5 ms"
    assert 0.0 < taught(sizes(200), b_s=0.1, noise=0.05).cost.overhead_tokens < 0.1 / A_S


def test_the_error_is_that_of_the_textbook() -> None:
    x, y = [100, 200, 400, 700], [0.031, 0.052, 0.085, 0.149]
    model = CostModel()
    for size, duration_s in zip(x, y, strict=True):
        model.observe(items=1, real_tokens=size, padded_tokens=size, duration_s=duration_s)
    found = linregress(x, y)
    # The few batches hardly differ in weight.
    sure_s = found.intercept - SURE_ERRORS * found.intercept_stderr
    assert model.cost.overhead_tokens == pytest.approx(sure_s / found.slope, rel=0.1)


def test_a_short_batch_spends_a_tenth_on_itself() -> None:
    assert taught(sizes(20)).cost.short_batch_tokens == 250  # 250 x 0.2 ms = 50 ms, beside 5 ms.
    assert taught(sizes(20), b_s=0.0).cost.short_batch_tokens == pytest.approx(1, abs=1)


def test_where_other_work_looks_like_the_cost_of_a_batch_none_is_put_together_for_it() -> None:
    shared, alone = CostModel(shares_cores=True), CostModel()
    for tokens in (100, 300, 200, 500, 400) * 8:
        for model in (shared, alone):
            model.observe(items=1, real_tokens=tokens, padded_tokens=tokens, duration_s=5e-3 + 2e-4 * tokens)
    assert alone.cost.overhead_tokens == pytest.approx(25)
    assert shared.cost.overhead_tokens == 0
    assert shared.cost.short_batch_tokens == 100  # 20 ms.
    assert shared.cost.of_batch(100) == alone.cost.of_batch(100) == pytest.approx(25e-3)
