import numpy as np
import pytest
from numpy.typing import NDArray

from reward_proto.models import ModelKind
from reward_service.domain import Batch, Encoded, Head, Read, Span
from reward_service.errors import ModelFailedError
from reward_service.training import scoring
from reward_service.training.scoring import scalars, score_all

REGRESSOR = Head(ModelKind.SEQUENCE_REGRESSION)


class SumBackend:
    """A regressor whose scalar is the sum of the real tokens' ids."""

    runtime = "sum"

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        self.shapes.append(batch.input_ids.shape)
        return (batch.input_ids * batch.attention_mask).sum(axis=1, keepdims=True).astype(np.float32)

    def close(self) -> None: ...


def inputs(lengths: list[int]) -> list[Encoded]:
    return [
        Encoded(np.full(n, i + 1), (Read(np.zeros(0, dtype=np.int64), (Span(0, 1),)),)) for i, n in enumerate(lengths)
    ]


def test_scores_come_in_the_inputs_order() -> None:
    lengths = [5, 1, 4, 2, 3]
    (scores,) = score_all(SumBackend(), [REGRESSOR], inputs(lengths), pad_id=9)
    assert scalars(scores).tolist() == [(i + 1) * n for i, n in enumerate(lengths)]


def test_batches_hold_like_lengths_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "MAX_BATCH_TOKENS", 8)
    backend = SumBackend()
    # One that is over the budget alone still goes, alone.
    score_all(backend, [REGRESSOR], inputs([4, 2, 20, 4, 2, 2]), pad_id=0)
    assert backend.shapes == [(3, 2), (2, 4), (1, 20)]


def test_nothing_to_score() -> None:
    assert score_all(SumBackend(), [REGRESSOR], [], pad_id=0) == [[]]


def test_a_score_that_is_not_finite_is_an_error() -> None:
    class NanBackend(SumBackend):
        def infer(self, batch: Batch) -> NDArray[np.float32]:
            return np.full((len(batch.input_ids), 1), np.nan, dtype=np.float32)

    with pytest.raises(ModelFailedError):
        score_all(NanBackend(), [REGRESSOR], inputs([1]), pad_id=0)
