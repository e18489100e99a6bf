import numpy as np
import pytest
import torch

from reward_proto.models import ModelKind
from reward_service.core.align import align
from reward_service.domain import Encoded, Head, Read, Span
from reward_service.training.read_out import read_tokens

LOGITS = torch.tensor([[[1.0, 0.0], [2.0, 4.0], [6.0, 2.0]], [[3.0, 1.0], [5.0, 7.0], [0.0, 0.0]]])


def read(positions: list[int], widths: list[int] | None = None, divisors: list[int] | None = None) -> Read:
    spans = tuple(Span(i, i + 1) for i in range(len(positions)))
    return Read(
        np.array(positions, dtype=np.int64),
        spans,
        None if widths is None else np.array(widths),
        None if widths is None else np.array(divisors or widths),
    )


def test_one_token_each() -> None:
    found = read_tokens(LOGITS, [1, 0], [read([1]), read([0, 2])])
    assert found.tolist() == [[5.0, 7.0], [1.0, 0.0], [6.0, 2.0]]


def test_means_by_hand() -> None:
    found = read_tokens(LOGITS, [0, 1], [read([0, 1], [1, 2]), read([0], [2])])
    assert found.tolist() == [[1.0, 0.0], [4.0, 3.0], [4.0, 4.0]]


def test_sums_by_hand() -> None:
    assert read_tokens(LOGITS, [0, 1], [read([0], [3], [2]), read([1], [1], [2])]).tolist() == [[4.5, 3.0], [2.5, 3.5]]


def test_every_token_of_a_segment_gets_its_share_of_the_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    torch.autograd.backward(read_tokens(logits, [0], [read([1], [2])]).sum())
    assert logits.grad is not None
    assert logits.grad[0, :, 0].tolist() == [0.0, 0.5, 0.5]
    assert logits.grad[1].abs().sum() == 0


@pytest.mark.parametrize("widths", [None, [[2, 1], [1]]])
def test_training_reads_what_serving_reads(widths: list[list[int]] | None) -> None:
    reads = [read([0, 2], widths and widths[0]), read([1], widths and widths[1])]
    encoded = [Encoded(np.arange(3), (one,)) for one in reads]
    head = Head(ModelKind.TOKEN_CLASSIFICATION, ("error", "ok"), "ok")
    served = [score.segments for (score,) in align([head], encoded, LOGITS.numpy())]  # type: ignore[union-attr]
    taught = read_tokens(LOGITS, [0, 1], reads)
    assert [list(segment.logits) for segments in served for segment in segments] == taught.tolist()
