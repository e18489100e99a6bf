import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reward_proto.models import ModelKind
from reward_service.domain import Batch, Encoded, Head, Read, Span, TextItem
from reward_service.training.dataset import PairExample, SpanExample
from reward_service.training.feedback import Pair, PairRow, SpanRow
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


def marked(inputs: Encoded, labels: list[int]) -> SpanExample:
    return SpanExample(SpanRow("here", 0, TextItem("", "x"), ()), inputs, np.array(labels))


def compared(inputs: tuple[Encoded, ...], *pairs: Pair) -> PairExample:
    return PairExample(PairRow("here", 0, (TextItem("", "x"),) * len(inputs), pairs), inputs)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_span_loss_reads_each_items_own_separators() -> None:
    examples = [
        marked(encoded([7, 1, 7, 2], [1, 3]), [1, 0]),
        marked(encoded([3, 7], [0]), [1]),
    ]
    objective = SpanObjective(examples, [], CLASSIFIER, pad_id=9)
    # -log P(ok) = softplus(id), -log P(error) = softplus(-id), at the ids 1, 2 and 3.
    expected = (softplus(1) + softplus(-2) + softplus(3)) / 3
    total = objective.total([0, 1])
    assert total == 3
    assert objective.loss(IdModel(True), [0, 1], total, CPU).item() == pytest.approx(expected)
    # The uneven parts of a batch add up to its mean.
    parts = [objective.loss(IdModel(True), [index], total, CPU).item() for index in (0, 1)]
    assert parts == pytest.approx([(softplus(1) + softplus(-2)) / 3, softplus(3) / 3])
    assert objective.lengths == [4, 2]


def test_class_weights_weigh_the_loss_its_total_and_the_held_out_loss() -> None:
    examples = [marked(encoded([7, 1, 7, 2], [1, 3]), [1, 0]), marked(encoded([3, 7], [0]), [IGNORED])]
    weights = np.array([3.0, 0.5], dtype=np.float32)  # error, ok
    objective = SpanObjective(examples, examples, CLASSIFIER, pad_id=9, class_weights=weights)
    assert objective.total([0, 1]) == 3.5
    expected = (0.5 * softplus(1) + 3 * softplus(-2)) / 3.5
    assert objective.loss(IdModel(True), [0, 1], 3.5, CPU).item() == pytest.approx(expected)
    held_out = objective.evaluate(IdModel(True))
    assert held_out.loss == pytest.approx(expected)
    assert held_out.metrics["loss"] == pytest.approx((softplus(1) + softplus(-2)) / 2)


def test_pair_loss_weighs_each_question_the_same() -> None:
    four = compared(tuple(encoded([i]) for i in (1, 2, 3, 4)), (3, 0), (0, 1))
    two = compared((encoded([5]), encoded([6, 1])), (0, 1))
    objective = PairObjective([four, two], [], REGRESSOR, pad_id=9)
    # Margins 4 - 1 and 1 - 2, averaged; then 5 - 7.
    expected = ((softplus(-3) + softplus(1)) / 2 + softplus(2)) / 2
    assert objective.loss(IdModel(False), [0, 1], objective.total([0, 1]), CPU).item() == pytest.approx(expected)
    assert objective.lengths == [1, 2]


def test_held_out_figures() -> None:
    dev = [marked(encoded([7, 1], [1]), [1]), marked(encoded([2, 7], [0]), [0])]
    held_out = SpanObjective([], dev, CLASSIFIER, pad_id=9).evaluate(IdModel(True))
    metrics = held_out.metrics
    assert held_out.loss == metrics["loss"]
    # Ids 1 and 2 both win as "error".
    assert metrics["accuracy"] == 0.5
    assert metrics["auc"] == 1.0
    pairs = [compared((encoded([5]), encoded([6])), (0, 1))]
    assert PairObjective([], pairs, REGRESSOR, pad_id=9).evaluate(IdModel(False)).metrics["accuracy"] == 0.0


def test_calibration_is_over_segments_for_a_classifier_and_scalars_for_a_regressor() -> None:
    (spans,) = calibrate(IdModel(True), [CLASSIFIER], [encoded([0, 1], [0, 1]), encoded([1], [0])], 9)
    low = 1 / (1 + math.e)
    values = np.array([0.5, low, low])
    assert (spans.mean, spans.std) == (pytest.approx(values.mean()), pytest.approx(values.std()))
    (whole,) = calibrate(IdModel(False), [REGRESSOR], [encoded([2, 3]), encoded([1])], 9)
    assert (whole.mean, whole.std) == (3.0, 2.0)


def test_a_constant_score_still_has_a_positive_std() -> None:
    (constant,) = calibrate(IdModel(False), [REGRESSOR], [encoded([1]), encoded([1])], 9)
    assert constant.std > 0


def test_what_teaches() -> None:
    assert teaches(marked(encoded([1], [0]), [0]))
    assert not teaches(marked(encoded([1], [0]), [IGNORED]))
    assert teaches(compared((), (0, 1)))
    assert not teaches(compared(()))
