"""Figures by hand, for logits that are told."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reward_proto.models import Calibration, ModelKind
from reward_proto.score import Granularity
from reward_service.config import Precision
from reward_service.core.segment import SEGMENTER_VERSION
from reward_service.domain import Batch, Encoded, Read, Span
from reward_service.errors import ModelFailedError, ParityError
from reward_service.registry.manifest import Manifest, SegmenterSpec
from reward_service.training.parity import compare, score_in_batches

SEGMENTER = SegmenterSpec(version=SEGMENTER_VERSION)
SPANS = Manifest(
    name="spans",
    kind=ModelKind.TOKEN_CLASSIFICATION,
    granularity=Granularity.SENTENCE,
    template="",
    labels=("error", "ok"),
    ok_label="ok",
    max_tokens=9,
    segmenter=SEGMENTER,
)
WHOLE = Manifest(
    name="whole",
    kind=ModelKind.SEQUENCE_REGRESSION,
    granularity=Granularity.SEQUENCE,
    template="",
    max_tokens=9,
    segmenter=SEGMENTER,
    calibration=Calibration(mean=0.0, std=4.0),
)


class Table:
    """Logits by token id, or for a sequence model by the first one's; more of them in a batch of several."""

    runtime = "table"

    def __init__(self, logits: dict[int, list[float]], is_sequence: bool = False, drift: float = 0.0) -> None:
        self.logits, self.is_sequence, self.drift = logits, is_sequence, drift

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        ids = batch.input_ids[:, 0] if self.is_sequence else batch.input_ids
        found = np.vectorize(lambda token: np.array(self.logits[token]), signature="()->(c)")(ids)
        return (found + (self.drift if len(batch.input_ids) > 1 else 0.0)).astype(np.float32)

    def close(self) -> None: ...


def inputs(ids: list[int]) -> Encoded:
    spans = tuple(Span(2 * place, 2 * place + 1) for place in range(len(ids)))
    return Encoded(np.array(ids), (Read(np.arange(len(ids)), spans),))


def odds(probability: float) -> list[float]:
    return [0.0, float(np.log(probability / (1 - probability)))]


def test_spans_by_hand() -> None:
    encoded = [inputs([1, 2]), inputs([3])]
    expected = Table({0: [0.0, 0.0], 1: odds(0.2), 2: odds(0.4), 3: odds(0.9)})
    other = Table({0: [0.0, 0.0], 1: odds(0.3), 2: odds(0.6), 3: odds(0.5 + 1e-4)})
    scores = score_in_batches(expected, SPANS, encoded, 0)
    figures = compare(SPANS, Precision.INT8, scores, other, encoded, 0)["spans"]
    assert figures.max_abs_diff == pytest.approx(0.4, abs=1e-3)
    assert figures.mean_abs_diff == pytest.approx((0.1 + 0.2 + 0.4) / 3, abs=1e-3)
    # .2 .4 .9 become .3 .6 .5: the last two change places, so 1 - 6 * (0 + 1 + 1) / (3 * 8).
    assert figures.rank_correlation == pytest.approx(0.5)
    assert (figures.label_flips, figures.n_scores) == (1, 3)
    assert figures.label_flip_share == pytest.approx(1 / 3)
    assert figures.batch_drift == 0
    assert figures.unit == 1
    assert "a score differs by 0.4" in (figures.fault or "")


def test_a_regressors_bounds_below_fp32_are_in_its_standard_deviations() -> None:
    one = Encoded(np.array([1]), (Read(np.array([], dtype=np.int64), (Span(0, 1),)),))
    two = Encoded(np.array([2]), (Read(np.array([], dtype=np.int64), (Span(0, 0),)),))
    scores = score_in_batches(Table({1: [1.0], 2: [5.0]}, is_sequence=True), WHOLE, [one, two], 0)
    near = Table({1: [1.1], 2: [5.1]}, is_sequence=True, drift=-0.05)
    low = compare(WHOLE, Precision.BF16, scores, near, [one, two], 0)["whole"]
    # Together 1.05 and 5.05, alone 1.1 and 5.1; a blank response has a scalar too.
    assert (low.max_abs_diff, low.mean_abs_diff, low.batch_drift) == pytest.approx((0.1, 0.05, 0.05), abs=1e-6)
    assert (low.n_scores, low.label_flips, low.label_flip_share) == (2, 0, 0)
    full = compare(WHOLE, Precision.FP32, scores, near, [one, two], 0)["whole"]
    assert (full.unit, full.max_allowed) == (1.0, 1e-4)
    assert low.max_allowed == pytest.approx(4 * compare(SPANS, Precision.BF16, *_same())["spans"].max_allowed)
    bare = WHOLE.model_copy(update={"calibration": None})
    assert compare(bare, Precision.BF16, scores, near, [one, two], 0)["whole"].unit == pytest.approx(2.0)  # Of 1 and 5.


def _same() -> tuple[list, Table, list[Encoded], int]:
    table, encoded = Table({1: odds(0.2)}), [inputs([1])]
    return score_in_batches(table, SPANS, encoded, 0), table, encoded, 0


def test_equal_scores_pass_and_have_no_ranks() -> None:
    figures = compare(SPANS, Precision.FP32, *_same())["spans"]
    assert (figures.max_abs_diff, figures.rank_correlation, figures.fault) == (0, None, None)


def test_what_cannot_be_compared_is_an_error() -> None:
    encoded = [inputs([])]
    encoded[0] = Encoded(np.array([1]), encoded[0].reads)
    table = Table({1: odds(0.2)})
    with pytest.raises(ParityError, match="anything to score"):
        compare(SPANS, Precision.FP32, score_in_batches(table, SPANS, encoded, 0), table, encoded, 0)
    with pytest.raises(ModelFailedError, match="NaN"):
        compare(SPANS, Precision.FP32, _same()[0], Table({1: [0.0, float("nan")]}), [inputs([1])], 0)


def test_nan_passes_no_bound(tmp_path: Path) -> None:
    figures = compare(SPANS, Precision.FP32, *_same())["spans"]
    assert figures.model_copy(update={"max_abs_diff": float("nan")}).fault is not None
    assert "in the mean" in (figures.model_copy(update={"mean_abs_diff": 1.0}).fault or "")
