"""Systems that answered the same prompts, pair by pair: how far apart, and whether that is more than chance."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_client.errors import DataError, VersionChangedError
from rl_client.offline.figures import AVERAGE_MAX_PREFIX, REWARD_PREFIX, FigureTable
from rl_client.offline.significance import CONFIDENCE, Values, holm, paired_bootstrap, sign_test
from rl_client.offline.systems import System
from rl_client.offline.text_figures import count_words

TIE_MARGIN = 1e-5
"""Scores of one text differ by so much from batch to batch; see the contract."""
LENGTH_BINS = 4
SLICE_RESAMPLES = 1999
LENGTH_SLICE, LONGER_SLICE = "length", "longer"

Mask = NDArray[np.bool_]


def check_comparable(systems: Sequence[System], *, common: bool) -> tuple[list[System], dict[str, int]]:
    """The systems on the prompts that they share.

    Args:
        systems: Two or more.
        common: Whether prompts that some system lacks are left out; they are an error otherwise.

    Returns:
        systems: Each with the same prompts in the order of the first.
        left_out: By system how many of its prompts were left out.

    Raises:
        DataError: If systems share a name, have different prompts under one id, or some prompts are not in all.
        VersionChangedError: If a model scored two systems with different versions or runtimes.
    """
    names = [system.name for system in systems]
    if len(set(names)) < len(names):
        raise DataError(f"systems need different names (NAME=PATH): {', '.join(names)}")
    for model in {model for system in systems for model in system.models}:
        pins = {system.name: " on ".join(system.models[model]) for system in systems if model in system.models}
        if len(set(pins.values())) > 1:
            raise VersionChangedError(f"{model} scored with different versions: {pins}; score the files anew")
    shared = [key for key in systems[0].prompts if all(key in system.prompts for system in systems)]
    left_out = {system.name: len(system.prompts) - len(shared) for system in systems}
    if any(left_out.values()) and not common:
        raise DataError(f"prompts that are not in every file: {left_out}; --common compares the {len(shared)} others")
    if not shared:
        raise DataError("the files share no prompt")
    for key in shared:
        if len({system.prompts[key].prompt for system in systems}) > 1:
            raise DataError(f"{key!r} is another prompt in each file")
    cut = [System(system.name, {key: system.prompts[key] for key in shared}, system.models) for system in systems]
    return cut, left_out


def compare_systems(
    systems: Sequence[System], tables: Sequence[FigureTable], *, slices: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """Compare every pair, in every figure that both have.

    Args:
        systems: With the same prompts in the same order; see `check_comparable`.
        tables: Their figures.
        slices: Columns to slice by.
        seed: Of the resampling.

    Returns:
        One entry for each pair (a, b). `difference` is a less b, and `win` counts prompts on which a is higher. `_holm`
        p-values are corrected over all pairs and all reward models together; other figures, and slices, are families
        of their own.
    """
    pairs = [
        _compare_pair(systems[a], systems[b], tables[a], tables[b], slices, seed)
        for a, b in combinations(range(len(systems)), 2)
    ]
    for rewards in (True, False):
        _correct([
            figure
            for pair in pairs
            for name, figure in pair["figures"].items()
            if name.startswith(REWARD_PREFIX) is rewards
        ])  # fmt: skip
    for by in (LENGTH_SLICE, LONGER_SLICE, *slices):
        _correct([
            part for pair in pairs for figure in pair["figures"].values() for part in figure["by"].get(by, [])
        ])  # fmt: skip
    return pairs


def pareto_front(means: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Systems that no other one beats in some reward without losing in another.

    Args:
        means: By system the mean of each reward; higher is better.
    """

    def beats(other: str, one: str) -> bool:
        shared = means[one].keys() & means[other].keys()
        return all(means[other][name] >= means[one][name] for name in shared) and any(
            means[other][name] > means[one][name] for name in shared
        )

    return [one for one in means if not any(beats(other, one) for other in means)]


def _compare_pair(
    a: System, b: System, left: FigureTable, right: FigureTable, slices: Sequence[str], seed: int
) -> dict[str, Any]:
    masks = {by: list(parts) for by, parts in _slice_masks(a, b, slices)}
    same = np.array([_texts(a, key) == _texts(b, key) for key in a.prompts])
    figures = {}
    for name, values in left.values.items():
        if name not in right.values:
            continue
        differences = values - right.values[name]
        known = np.isfinite(differences)
        if not known.any():
            continue
        if name.startswith((REWARD_PREFIX, AVERAGE_MAX_PREFIX)):
            # The same texts have the same score, whatever batch they were in.
            differences = np.where(same & known, 0.0, differences)
        figures[name] = _test(differences[known], seed) | {
            "left_out": int((~known).sum()),
            "by": {
                by: [
                    {"slice": label, **_test(differences[mask & known], seed, SLICE_RESAMPLES)}
                    for label, mask in parts
                    if (mask & known).any()
                ]
                for by, parts in masks.items()
            },
        }
    return {"a": a.name, "b": b.name, "figures": figures}


def _test(differences: Values, seed: int, resamples: int | None = None) -> dict[str, Any]:
    options = {} if resamples is None else {"resamples": resamples}
    interval, p = paired_bootstrap(differences, seed=seed, **options)
    sign = sign_test(differences, TIE_MARGIN)
    return {
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "win": sign.win,
        "tie": sign.tie,
        "lose": sign.lose,
        "p_bootstrap": p,
        "p_sign": sign.p,
    }


def _correct(tests: Sequence[dict[str, Any]]) -> None:
    """Add the corrected p-values of one family, and whether the difference of means is found."""
    for name in ("p_bootstrap", "p_sign"):
        for test, corrected in zip(tests, holm([test[name] for test in tests]), strict=True):
            test[f"{name}_holm"] = corrected
    for test in tests:
        test["found"] = test["p_bootstrap_holm"] <= 1.0 - CONFIDENCE


def _slice_masks(a: System, b: System, slices: Sequence[str]) -> Iterator[tuple[str, Iterator[tuple[str, Mask]]]]:
    left, right = (np.array([_mean_words(system, key) for key in system.prompts]) for system in (a, b))
    yield LENGTH_SLICE, _length_bins((left + right) / 2)
    longer = {f"{a.name} longer": left > right, "same length": left == right, f"{b.name} longer": left < right}
    yield LONGER_SLICE, iter(longer.items())
    for column in slices:
        labels = np.array([prompt.slices[column] for prompt in a.prompts.values()])
        yield column, ((str(label), labels == label) for label in np.unique(labels))


def _length_bins(lengths: Values) -> Iterator[tuple[str, Mask]]:
    """Bins of about as many prompts each, by the mean words of both responses."""
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, LENGTH_BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, lengths, side="left")
    for number in np.unique(bins):
        inside = bins == number
        yield f"{lengths[inside].min():g} to {lengths[inside].max():g} words", inside


def _mean_words(system: System, key: str) -> float:
    responses = system.prompts[key].responses
    return sum(count_words(response.text) for response in responses) / len(responses)


def _texts(system: System, key: str) -> list[str]:
    return sorted(response.text for response in system.prompts[key].responses)


def summary_row(summary: Mapping[str, Any]) -> dict[str, float]:
    """The mean of each reward in a system's summary."""
    return {
        name: figure["mean"]
        for name, figure in summary["figures"].items()
        if name.startswith(REWARD_PREFIX) and figure["mean"] is not None
    }
