import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from reward_proto.feedback import SpanError
from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.core.encode import InputEncoder, InputSpec
from reward_service.domain import Batch, Encoded, Head, Read, Span, TextItem
from reward_service.errors import ConfigError
from reward_service.training.dataset import Inputs, PairExample, SpanExample
from reward_service.training.evaluate import Rule
from reward_service.training.feedback import PairRow, SpanRow
from reward_service.training.joint import JointExample, JointObjective, Lesson, build_joint_examples
from reward_service.training.jsonl import JsonlFeedback
from reward_service.training.labels import IGNORED, LABELS, OK_LABEL, SpanRule
from tests.reward_service.conftest import byte_tokenizer

CPU = torch.device("cpu")
FINE = Head(ModelKind.TOKEN_CLASSIFICATION, LABELS, OK_LABEL, "fine", 0)
WHOLE = Head(ModelKind.SEQUENCE_REGRESSION, name="whole", first_column=2)
COARSE = Head(ModelKind.TOKEN_CLASSIFICATION, LABELS, OK_LABEL, "coarse", 3)
RULE = Rule(SpanRule(frozenset({"Wrong"})))
ERROR, OK = LABELS.index("error"), LABELS.index("ok")
ROW = SpanRow("here", 0, TextItem("", "a b"), ())


class IdModel:
    """The five logits of a token with id i: [i, 0], -i, [2 i, i]."""

    runtime = "ids"

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        ids = (input_ids * attention_mask).float()
        return SimpleNamespace(logits=torch.stack([ids, 0 * ids, -ids, 2 * ids, ids], dim=-1))

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        logits = self(torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)).logits
        return np.asarray(logits.numpy(), dtype=np.float32)

    def close(self) -> None: ...


def text(ids: list[int], fine: list[int], coarse: list[int]) -> Encoded:
    def read(places: list[int]) -> Read:
        return Read(np.array(places, dtype=np.int64), tuple(Span(i, i + 1) for i in range(len(places))))

    return Encoded(np.array(ids, dtype=np.int64), (read(fine), read([0]), read(coarse)))


def example(
    texts: list[Encoded], fine: list[int], coarse: list[int], pairs: tuple[tuple[int, int], ...]
) -> JointExample:
    spans = {
        "fine": SpanExample(ROW, texts[0], np.array(fine, dtype=np.int64)),
        "coarse": SpanExample(ROW, texts[0], np.array(coarse, dtype=np.int64)),
    }
    row = PairRow("here", 0, (ROW.item,) * len(texts), pairs)
    return JointExample(tuple(texts), spans, {"whole": PairExample(row, tuple(texts))})


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


FIRST = example([text([1, 2, 3], [1, 2], [1]), text([4], [0], [0])], [OK, ERROR], [OK], ((0, 1),))
SECOND = example([text([2, 1, 1, 1], [1, 3], [1]), text([1], [0], [0])], [ERROR, IGNORED], [IGNORED], ())


def lessons(*weights: float) -> list[Lesson]:
    return [Lesson(head, RULE, weight) for head, weight in zip((FINE, WHOLE, COARSE), weights, strict=True)]


def test_the_loss_by_hand() -> None:
    objective = JointObjective([FIRST, SECOND], [], lessons(1.0, 10.0, 100.0), pad_id=9)
    # fine: -log P(ok) = softplus(id), -log P(error) = softplus(-id); rows count the same, IGNORED ones do not count.
    fine = (softplus(2) + softplus(-3)) / 2 + softplus(-1)
    # whole: -id at the first token; text 0 (-1) beats text 1 (-4) in the first row, the second row has no pair.
    whole = softplus(-3)
    # coarse: [2 i, i], so -log P(ok) = softplus(i) of the only segment that counts.
    coarse = softplus(2)
    found = objective.loss(IdModel(), [0, 1], objective.total([0, 1]), CPU).item()
    assert found == pytest.approx((fine + 10 * whole + 100 * coarse) / 2, rel=1e-6)


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    objective = JointObjective([FIRST, SECOND], [], lessons(1.0, 2.0, 3.0), pad_id=9)
    total = objective.total([0, 1])
    parts = sum(objective.loss(IdModel(), [index], total, CPU).item() for index in (0, 1))
    assert parts == pytest.approx(objective.loss(IdModel(), [0, 1], total, CPU).item(), rel=1e-6)


def test_held_out_figures_stand_by_head() -> None:
    objective = JointObjective([], [FIRST, SECOND], lessons(1.0, 2.0, 3.0), pad_id=9)
    held_out = objective.evaluate(IdModel())
    assert held_out.metrics["fine.n_segments"] == 3
    assert held_out.metrics["coarse.n_segments"] == 1
    assert held_out.metrics["whole.n_pairs"] == 1
    # Every segment is called an error: right for two of three.
    assert held_out.metrics["fine.accuracy"] == pytest.approx(2 / 3)
    assert held_out.metrics["whole.accuracy"] == 1.0
    fine, whole, coarse = (softplus(2) + softplus(-3) + softplus(-1)) / 3, softplus(-3), softplus(2)
    assert held_out.loss == pytest.approx(fine + 2 * whole + 3 * coarse, rel=1e-6)


def inputs(tokenizer: Tokenizer, template: str = "") -> Inputs:
    kinds = (ModelKind.TOKEN_CLASSIFICATION, ModelKind.SEQUENCE_REGRESSION, ModelKind.TOKEN_CLASSIFICATION)
    granularities = (Granularity.SUB_SENTENCE, Granularity.SEQUENCE, Granularity.SENTENCE)
    return Inputs(InputEncoder(tokenizer, InputSpec(template, kinds, 256)), granularities)


def test_a_text_that_teaches_several_heads_is_one_input() -> None:
    item = TextItem("", "One two three four five, six seven eight nine ten. More words stand here now.")
    other = TextItem("", "Nothing.")
    mark = SpanError(error_type="Wrong", start=0, end=24)
    feedback = JsonlFeedback([SpanRow("a", 0, item, (mark,))], [PairRow("a", 0, (other, item), ((1, 0),))])
    (built,) = build_joint_examples(feedback, inputs(byte_tokenizer()), lessons(1, 1, 1))
    assert len(built.texts) == 2
    assert built.spans["fine"].labels.tolist() == [ERROR, OK, OK]
    # The mark covers not quite half of the first sentence, but lies in it whole.
    assert built.spans["coarse"].labels.tolist() == [ERROR, OK]
    assert built.spans["fine"].encoded is built.spans["coarse"].encoded is built.pairs["whole"].encoded[1]
    assert all(built.teaches(name) for name in ("fine", "whole", "coarse"))


def test_rows_of_one_kind_teach_their_heads_alone() -> None:
    items = [TextItem("", "One."), TextItem("", "Two.")]
    feedback = JsonlFeedback([SpanRow("a", 0, items[0], ())], [PairRow("b", 1, tuple(items), ((0, 1),))])
    marked, compared = build_joint_examples(feedback, inputs(byte_tokenizer()), lessons(1, 1, 1))
    assert [marked.teaches(name) for name in ("fine", "whole", "coarse")] == [True, False, True]
    assert [compared.teaches(name) for name in ("fine", "whole", "coarse")] == [False, True, False]
    objective = JointObjective([marked, compared], [], lessons(1, 1, 1), pad_id=0)
    for index in (0, 1):
        assert math.isfinite(objective.loss(IdModel(), [index], 1.0, CPU).item())


def test_every_input_that_is_refused_is_told() -> None:
    feedback = JsonlFeedback([SpanRow(f"file:{n}", n, TextItem("", "One."), ()) for n in range(2)], [])
    with pytest.raises(ConfigError) as caught:
        build_joint_examples(feedback, inputs(byte_tokenizer(), "{question}"), lessons(1, 1, 1))
    assert [fault.partition(": ")[0] for fault in caught.value.faults] == ["file:0", "file:1"]
