"""Invariant 9: whitening gives masked mean 0 and standard deviation 1, leaves pads at 0; N processes equal one."""

import math
import statistics

import pytest
import torch

from rl_client.algorithms.masking import MaskedStatistics, masked_statistics, masked_whiten

GENERATOR_SEED = 5
SCALES = (1e-3, 1.0, 40.0)


def batch(scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(GENERATOR_SEED)
    x = scale * (torch.randn(6, 9, generator=generator) + 2.0)
    mask = torch.rand(6, 9, generator=generator) < 0.6
    mask[4] = False
    return x, mask


@pytest.mark.parametrize("scale", SCALES)
def test_mean_zero_std_one_pads_zero(scale: float) -> None:
    x, mask = batch(scale)
    whitened = masked_whiten(x, mask)
    real = whitened[mask].tolist()
    assert statistics.fmean(real) == pytest.approx(0.0, abs=1e-5)
    assert statistics.pstdev(real) == pytest.approx(1.0, rel=1e-5)
    assert whitened[~mask].tolist() == [0.0] * int((~mask).sum())


@pytest.mark.parametrize("scale", SCALES)
def test_without_the_shift_the_mean_stays_and_pads_are_zero(scale: float) -> None:
    x, mask = batch(scale)
    whitened = masked_whiten(x, mask, shift_mean=False)
    real = whitened[mask].tolist()
    assert statistics.fmean(real) == pytest.approx(statistics.fmean(x[mask].tolist()), rel=1e-4)
    assert statistics.pstdev(real) == pytest.approx(1.0, rel=1e-5)
    assert not whitened[~mask].any()


@pytest.mark.parametrize("shift_mean", [True, False])
def test_a_slow_loop(shift_mean: bool) -> None:
    x, mask = batch(3.0)
    real = [
        value
        for row, kept in zip(x.tolist(), mask.tolist(), strict=True)
        for value, k in zip(row, kept, strict=True)
        if k
    ]
    mean = sum(real) / len(real)
    std = math.sqrt(sum((value - mean) ** 2 for value in real) / len(real))
    expected = [
        [
            ((value - mean) / std + (0.0 if shift_mean else mean)) if k else 0.0
            for value, k in zip(row, kept, strict=True)
        ]
        for row, kept in zip(x.tolist(), mask.tolist(), strict=True)
    ]
    got = masked_whiten(x, mask, shift_mean=shift_mean).tolist()
    for expected_row, row in zip(expected, got, strict=True):
        assert row == pytest.approx(expected_row, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("rows", [(1, 5), (2, 2, 2), (1, 1, 1, 1, 1, 1)])
@pytest.mark.parametrize("shift_mean", [True, False])
def test_processes_with_parts_of_any_size_equal_one(rows: tuple[int, ...], shift_mean: bool) -> None:
    x, mask = batch(1.0)
    parts = list(zip(x.split(rows), mask.split(rows), strict=True))
    merged = MaskedStatistics.merge(masked_statistics(*part) for part in parts)
    together = torch.cat([masked_whiten(*part, shift_mean, merged) for part in parts])
    torch.testing.assert_close(together, masked_whiten(x, mask, shift_mean), rtol=1e-6, atol=1e-6)
