"""How far two runtimes' scores of the same texts are apart."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from reward_service.config import Batching, Precision
from reward_service.core.align import align
from reward_service.core.backend import Backend
from reward_service.core.collate import collate
from reward_service.domain import Encoded, ItemScore
from reward_service.errors import ModelFailedError, ParityError
from reward_service.registry.exports import HeadParity
from reward_service.registry.manifest import Manifest
from reward_service.runtimes.gate import TOLERANCES, item_values, service_batches, unit_of

Scores = list[tuple[ItemScore, ...]]
"""For each item the score of each head."""


def score_in_batches(backend: Backend, manifest: Manifest, encoded: Sequence[Encoded], pad_id: int) -> Scores:
    """Score inputs in the batches in which the service runs them by default.

    Raises:
        ModelFailedError: The runtime raised, or gave NaN or infinity.
    """
    batching = Batching()
    scores: dict[int, tuple[ItemScore, ...]] = {}
    lengths = [item.length_tokens for item in encoded]
    for indices in service_batches(lengths, batching.max_batch_tokens, batching.max_padding):
        batch = [encoded[index] for index in indices]
        results = align(manifest.logit_heads, batch, backend.infer(collate(batch, pad_id)))
        scores.update(zip(indices, map(_sound, results), strict=True))
    return [scores[index] for index in range(len(encoded))]


def compare(
    manifest: Manifest,
    precision: Precision,
    expected: Scores,
    backend: Backend,
    encoded: Sequence[Encoded],
    pad_id: int,
) -> dict[str, HeadParity]:
    """Compare a runtime's scores with expected ones, head by head.

    The runtime scores each text twice, in padded batches and alone, so that a graph that depends on padding, batch size
    or length shows.

    Args:
        manifest: The model's.
        precision: Of the runtime; it chooses the bounds.
        expected: By the reference, of the same inputs.
        backend: The runtime.
        encoded: The inputs.
        pad_id: The tokenizer's id for padding.

    Returns:
        The figures of each head that has any score, by its name.

    Raises:
        ModelFailedError: The runtime raised, or gave NaN or infinity.
        ParityError: No head has a score.
    """
    batched = score_in_batches(backend, manifest, encoded, pad_id)
    alone = [score_in_batches(backend, manifest, [item], pad_id)[0] for item in encoded]
    parity: dict[str, HeadParity] = {}
    for index, output in enumerate(manifest.outputs):
        reference = _values(expected, index)
        if not len(reference):
            continue
        together, single = _values(batched, index), _values(alone, index)
        difference = np.abs(together - reference)
        flips = np.array(_labels(expected, index), dtype=object) != np.array(_labels(batched, index), dtype=object)
        bounds = TOLERANCES[precision]
        unit = unit_of(manifest, index, precision, reference)
        parity[output.name] = HeadParity(
            max_abs_diff=float(max(difference.max(), np.abs(single - reference).max())),
            mean_abs_diff=float(difference.mean()),
            rank_correlation=_rank_correlation(reference, together),
            label_flips=int(flips.sum()),
            label_flip_share=float(flips.mean()) if flips.size else 0.0,
            batch_drift=float(np.abs(together - single).max()),
            n_scores=len(reference),
            unit=unit,
            max_allowed=bounds.max_abs * unit,
            mean_allowed=bounds.mean_abs * unit,
        )
    if not parity:
        raise ParityError("no text to compare on has anything to score")
    return parity


def _sound(results: Sequence[ItemScore | ModelFailedError]) -> tuple[ItemScore, ...]:
    scores: list[ItemScore] = []
    for result in results:
        if isinstance(result, ModelFailedError):
            raise result
        scores.append(result)
    return tuple(scores)


def _values(scores: Scores, head: int) -> NDArray[np.float64]:
    return np.array([value for item in scores for value in item_values(item)[head]], dtype=np.float64)


def _labels(scores: Scores, head: int) -> list[str | None]:
    return [segment.label for item in scores for segment in item[head].segments]


def _rank_correlation(one: NDArray[np.float64], two: NDArray[np.float64]) -> float | None:
    if len(np.unique(one)) < 2 or len(np.unique(two)) < 2:
        return None
    return float(spearmanr(one, two).statistic)
