import math
import statistics

import pytest
import torch

from rl_client.algorithms.masking import (
    MaskedStatistics,
    masked_mean,
    masked_statistics,
    masked_var,
    masked_whiten,
)

X = torch.tensor([[1.0, 2.0, math.nan], [6.0, math.inf, 3.0]])
MASK = torch.tensor([[True, True, False], [True, False, True]])
REAL = [1.0, 2.0, 6.0, 3.0]
NOTHING = torch.zeros_like(MASK)


def test_mean_over_everything_and_along_a_dimension() -> None:
    assert masked_mean(X, MASK).item() == pytest.approx(3.0)
    assert masked_mean(X, MASK, dim=1).tolist() == pytest.approx([1.5, 4.5])
    assert masked_mean(X, MASK, dim=0).tolist() == pytest.approx([3.5, 2.0, 3.0])


def test_variance_is_the_population_one() -> None:
    assert masked_var(X, MASK).item() == pytest.approx(statistics.pvariance(REAL))


def test_no_real_token_gives_zero() -> None:
    assert masked_mean(X, NOTHING).item() == 0.0
    assert masked_mean(X, torch.tensor([[True, False, False], [False, False, False]]), dim=1).tolist() == [1.0, 0.0]
    assert masked_var(X, NOTHING).item() == 0.0
    assert masked_whiten(X, NOTHING).tolist() == [[0.0] * 3] * 2
    assert masked_statistics(X, NOTHING) == MaskedStatistics(0.0, 0.0, 0.0)


def test_statistics_of_the_real_tokens() -> None:
    stats = masked_statistics(X, MASK)
    assert stats.count == 4
    assert stats.mean == pytest.approx(3.0)
    assert stats.var == pytest.approx(statistics.pvariance(REAL))


def test_merging_takes_parts_of_any_size_and_empty_ones() -> None:
    parts = [[1.0, 2.0], [], [6.0], [3.0, -4.0, 100.0]]
    whole = [value for part in parts for value in part]
    merged = MaskedStatistics.merge(
        masked_statistics(torch.tensor(part), torch.ones(len(part), dtype=torch.bool)) for part in parts
    )
    assert merged.count == len(whole)
    assert merged.mean == pytest.approx(statistics.fmean(whole))
    assert merged.var == pytest.approx(statistics.pvariance(whole))
    assert MaskedStatistics.merge([]) == MaskedStatistics(0.0, 0.0, 0.0)


def test_whitening_figures_by_hand() -> None:
    # Real tokens 1, 3: mean 2, standard deviation 1.
    x = torch.tensor([1.0, 3.0, 50.0])
    mask = torch.tensor([True, True, False])
    assert masked_whiten(x, mask).tolist() == pytest.approx([-1.0, 1.0, 0.0])
    # Real tokens 0, 8: mean 4, standard deviation 4, not 2 as if one divided by the root of it.
    assert masked_whiten(torch.tensor([0.0, 8.0, 50.0]), mask).tolist() == pytest.approx([-1.0, 1.0, 0.0])
    # Without the shift the mean stays 4.
    assert masked_whiten(torch.tensor([0.0, 8.0, 50.0]), mask, shift_mean=False).tolist() == pytest.approx(
        [3.0, 5.0, 0.0]
    )


def test_tokens_that_are_all_alike_become_zero_or_keep_their_mean() -> None:
    x = torch.full((2, 3), 0.1)
    assert masked_whiten(x, MASK).abs().max().item() < 1e-2
    kept = masked_whiten(x, MASK, shift_mean=False)
    assert kept[MASK].tolist() == pytest.approx([0.1] * 4, abs=1e-2)
    assert masked_whiten(torch.tensor([7.0]), torch.tensor([True])).tolist() == [0.0]


def test_given_statistics_replace_those_of_the_tensor() -> None:
    x = torch.tensor([1.0, 3.0])
    mask = torch.tensor([True, True])
    stats = MaskedStatistics(count=10.0, mean=5.0, squared_deviations=40.0)  # standard deviation 2
    assert masked_whiten(x, mask, statistics=stats).tolist() == pytest.approx([-2.0, -1.0])
    assert masked_whiten(x, mask, shift_mean=False, statistics=stats).tolist() == pytest.approx([3.0, 4.0])


def test_inputs_are_left_as_they_were() -> None:
    before = X.clone()
    masked_whiten(X, MASK)
    masked_var(X, MASK)
    assert torch.equal(X.nan_to_num(), before.nan_to_num())
