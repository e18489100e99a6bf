import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reward_proto.models import ModelKind
from reward_service.domain import Batch, Encoded, Head, Read, Span
from reward_service.training.dataset import PairExample, SpanExample
from reward_service.training.labels import IGNORED, LABELS, OK_LABEL
from reward_service.training.objectives import PairObjective, SpanObjective, calibrate, teaches

CLASSIFIER = Head(ModelKind.TOKEN_CLASSIFICATION, LABELS, OK_LABEL)
REGRESSOR = Head(ModelKind.SEQUENCE_REGRESSION)
CPU = torch.device("cpu")


def encoded(ids: list[int], readout: list[int] | None = None) -> Encoded:
    places = np.array(readout or [], dtype=np.int64)
    spans = tuple(Span(i, i + 1) for i in range(len(places))) or (Span(0, 1),)
    return Encoded(np.array(ids, dtype=np.int64), (Read(places, spans),))


class IdModel:
    """Logits are the token ids: [id, 0] at each token, or the sum of the real ids of a sequence."""

    runtime = "ids"

    def __init__(self, reads_tokens: bool) -> None:
        self.reads_tokens = reads_tokens

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        real = (input_ids * attention_mask).float()
        if self.reads_tokens:
            return SimpleNamespace(logits=torch.stack([real, torch.zeros_like(real)], dim=-1))
        return SimpleNamespace(logits=real.sum(dim=1, keepdim=True))

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        result = self(torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)).logits.numpy()
        return np.asarray(result, dtype=np.float32)

    def close(self) -> None: ...


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_span_loss_reads_each_items_own_separators() -> None:
    examples = [
        SpanExample(encoded([7, 1, 7, 2], [1, 3]), np.array([1, 0])),
        SpanExample(encoded([3, 7], [0]), np.array([1])),
    ]
    objective = SpanObjective(examples, [], CLASSIFIER, pad_id=9)
    # -log P(ok) = softplus(id), -log P(error) = softplus(-id), at the ids 1, 2 and 3.
    expected = (softplus(1) + softplus(-2) + softplus(3)) / 3
    assert objective.loss(IdModel(True), [0, 1], CPU).item() == pytest.approx(expected)
    assert objective.loss(IdModel(True), [1], CPU).item() == pytest.approx(softplus(3))
    assert objective.lengths == [4, 2]


def test_pair_loss_weighs_each_question_the_same() -> None:
    four = PairExample(tuple(encoded([i]) for i in (1, 2, 3, 4)), ((3, 0), (0, 1)))
    two = PairExample((encoded([5]), encoded([6, 1])), ((0, 1),))
    objective = PairObjective([four, two], [], REGRESSOR, pad_id=9)
    # Margins 4 - 1 and 1 - 2, averaged; then 5 - 7.
    expected = ((softplus(-3) + softplus(1)) / 2 + softplus(2)) / 2
    assert objective.loss(IdModel(False), [0, 1], CPU).item() == pytest.approx(expected)
    assert objective.lengths == [1, 2]


def test_held_out_figures() -> None:
    dev = [SpanExample(encoded([7, 1], [1]), np.array([1])), SpanExample(encoded([2, 7], [0]), np.array([0]))]
    metrics = SpanObjective([], dev, CLASSIFIER, pad_id=9).evaluate(IdModel(True))
    # Ids 1 and 2 both win as "error".
    assert metrics["accuracy"] == 0.5
    assert metrics["auc"] == 1.0
    pairs = [PairExample((encoded([5]), encoded([6])), ((0, 1),))]
    assert PairObjective([], pairs, REGRESSOR, pad_id=9).evaluate(IdModel(False))["accuracy"] == 0.0


def test_calibration_is_over_segments_for_a_classifier_and_scalars_for_a_regressor() -> None:
    spans = calibrate(IdModel(True), CLASSIFIER, [encoded([0, 1], [0, 1]), encoded([1], [0])], 9)
    low = 1 / (1 + math.e)
    values = np.array([0.5, low, low])
    assert (spans.mean, spans.std) == (pytest.approx(values.mean()), pytest.approx(values.std()))
    whole = calibrate(IdModel(False), REGRESSOR, [encoded([2, 3]), encoded([1])], 9)
    assert (whole.mean, whole.std) == (3.0, 2.0)


def test_a_constant_score_still_has_a_positive_std() -> None:
    assert calibrate(IdModel(False), REGRESSOR, [encoded([1]), encoded([1])], 9).std > 0


def test_what_teaches() -> None:
    assert teaches(SpanExample(encoded([1], [0]), np.array([0])))
    assert not teaches(SpanExample(encoded([1], [0]), np.array([IGNORED])))
    assert teaches(PairExample((), ((0, 1),)))
    assert not teaches(PairExample((), ()))
