import threading
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from reward_service.backends.onnx_backend import OnnxBackend
from reward_service.config import Precision
from reward_service.domain import Batch, ItemScore, ScoredSpan, Span
from reward_service.errors import ModelFailedError, ParityError, StoreError
from reward_service.registry.exports import ReferenceText, read_reference
from reward_service.registry.store import Published
from reward_service.runtimes.gate import Gate, item_values, service_batches

Resolve = Callable[[str], Published]
TIMEOUT_S = 20.0


def reference(published: Published) -> list[ReferenceText]:
    return read_reference(published.export_path("onnxruntime-fp32") / "reference.jsonl")


def open_gate(published: Published, texts: list[ReferenceText], max_padding: float = 0.05) -> Gate:
    return Gate(published, texts, max_batch_tokens=2048, max_padding=max_padding)


class Counting(OnnxBackend):
    """Remembers its batches; adds to the logits."""

    def __init__(self, published: Published, added: float = 0.0) -> None:
        super().__init__(published.onnx_path(), threads=1)
        self.shapes: list[tuple[int, ...]] = []
        self.added = added

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        self.shapes.append(batch.input_ids.shape)
        logits = super().infer(batch)
        logits[..., 0] += self.added
        return logits


@pytest.mark.parametrize("name", ["relevance", "factuality", "completeness"])
def test_the_models_own_scores_pass(resolve: Resolve, name: str) -> None:
    published = resolve(name)
    gate = open_gate(published, reference(published))
    backend = Counting(published)
    gate.check(backend, Precision.FP32)
    rows = sum(rows for rows, _ in backend.shapes)
    assert rows == len(reference(published)) > 1
    assert all(rows == 1 or rows * tokens <= 2048 for rows, tokens in backend.shapes)


def test_scores_past_the_bound_are_told_by_head(resolve: Resolve) -> None:
    published = resolve("relevance")
    gate = open_gate(published, reference(published))
    with pytest.raises(
        ParityError, match=r"relevance@.*: on this machine onnxruntime-fp32 differs .* in relevance; 0\.0001"
    ):
        gate.check(Counting(published, added=0.01), Precision.FP32)
    gate.check(Counting(published, added=0.01), Precision.BF16)
    with pytest.raises(ParityError):
        gate.check(Counting(published, added=2.0), Precision.INT8)


def test_a_regressors_bound_is_in_its_standard_deviations(resolve: Resolve) -> None:
    published = resolve("completeness")
    texts = reference(published)
    gate = open_gate(published, texts)
    deviation = float(np.std([text.scores[0][0] for text in texts]))
    gate.check(Counting(published, added=0.005 * deviation), Precision.BF16)
    with pytest.raises(ParityError):
        gate.check(Counting(published, added=0.02 * deviation), Precision.BF16)  # The mean may be off by a hundredth.


def test_nan_is_no_score(resolve: Resolve) -> None:
    published = resolve("relevance")
    with pytest.raises(ModelFailedError, match="NaN"):
        open_gate(published, reference(published)).check(Counting(published, added=float("nan")), Precision.INT8)


def test_texts_that_are_divided_otherwise_are_refused(resolve: Resolve) -> None:
    published = resolve("relevance")
    texts = reference(published)
    texts[0] = texts[0].model_copy(update={"scores": ((*texts[0].scores[0], 0.5),)})
    with pytest.raises(StoreError, match="divided otherwise"):
        open_gate(published, texts)


def test_speed_is_of_real_tokens_and_bounded(resolve: Resolve) -> None:
    published = resolve("relevance")
    gate = open_gate(published, reference(published))
    backend = Counting(published)
    assert gate.measure([backend], 1) > 0
    assert len(backend.shapes) == 1
    assert gate.measure([backend], 10**9) > 0
    assert sum(rows for rows, _ in backend.shapes[1:]) == len(reference(published))


def test_lanes_are_measured_while_all_of_them_compute(resolve: Resolve) -> None:
    published = resolve("relevance")
    gate = open_gate(published, reference(published))
    together = threading.Barrier(2)

    class Meeting(Counting):
        def infer(self, batch: Batch) -> NDArray[np.float32]:
            together.wait(TIMEOUT_S)
            return super().infer(batch)

    lanes = [Meeting(published), Meeting(published)]
    assert gate.measure(lanes, 1) > 0
    assert [len(lane.shapes) for lane in lanes] == [1, 1]
    assert gate.measure(lanes, 10**9) > 0
    assert lanes[0].shapes == lanes[1].shapes
    assert sum(rows for rows, _ in lanes[0].shapes[1:]) == len(reference(published))


def test_batches_are_the_services() -> None:
    # The oldest is always in: 10, then its neighbours within the padding; then 50 and 48; then 20.
    assert service_batches([10, 50, 10, 48, 20], 2048, 0.05) == [[0, 2], [1, 3], [4]]
    assert service_batches([10, 50, 10, 48, 20], 20, 0.5) == [[0, 2], [1], [3], [4]]
    assert service_batches([], 20, 0.5) == []


def test_a_response_without_segments_has_its_scalar() -> None:
    span = ItemScore((ScoredSpan(Span(0, 1), 0.25, "ok", (0.0,)), ScoredSpan(Span(2, 3), 0.75, "ok", (0.0,))), 0.5)
    assert item_values([span, ItemScore((), 2.5), ItemScore((), None)]) == ((0.25, 0.75), (2.5,), ())
    with pytest.raises(ModelFailedError):
        item_values([ModelFailedError("no")])
