import numpy as np
import pytest

from reward_service.training.schedule import batches_an_epoch, learning_rate_share, length_grouped_batches


def test_an_epoch_visits_each_example_once_in_batches_of_like_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, size=1000).tolist()
    batches = list(length_grouped_batches(lengths, 16, np.random.default_rng(1)))
    assert sorted(index for batch in batches for index in batch) == list(range(1000))
    assert len(batches) == batches_an_epoch(1000, 16) == 63
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)


def test_epochs_differ_and_seeds_repeat() -> None:
    lengths = [1] * 50
    order = np.random.default_rng(3)
    first, second = (list(length_grouped_batches(lengths, 4, order)) for _ in range(2))
    assert first != second
    assert first == list(length_grouped_batches(lengths, 4, np.random.default_rng(3)))


def test_the_learning_rate_rises_then_falls() -> None:
    shares = [learning_rate_share(step, 10, 2) for step in range(11)]
    assert shares == pytest.approx([1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0])
    assert learning_rate_share(0, 5, 0) == 1.0
    assert learning_rate_share(5, 5, 5) == 0.0
