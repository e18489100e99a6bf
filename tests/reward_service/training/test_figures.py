import math

import numpy as np
import pytest

from reward_service.domain import Encoded, ItemScore, ScoredSpan, Span, TextItem
from reward_service.training.dataset import PairExample, SpanExample
from reward_service.training.feedback import Pair, PairRow, SpanRow
from reward_service.training.figures import calibration_bins, pair_metrics, span_metrics, weighted_loss
from reward_service.training.labels import IGNORED, LABELS

ERROR, OK = LABELS.index("error"), LABELS.index("ok")


def encoded() -> Encoded:
    return Encoded(np.zeros(1, dtype=np.int64), ())


def example(*labels: int) -> SpanExample:
    return SpanExample(SpanRow("here", 0, TextItem("", "x"), ()), encoded(), np.array(labels, dtype=np.int64))


def compared(responses: int, *pairs: Pair) -> PairExample:
    return PairExample(PairRow("here", 0, (TextItem("", "x"),) * responses, pairs), (encoded(),) * responses)


def scored(*probabilities: float) -> ItemScore:
    segments = tuple(
        ScoredSpan(Span(i, i + 1), p, "ok" if p > 0.5 else "error", (0.0, 0.0)) for i, p in enumerate(probabilities)
    )
    return ItemScore(segments, None)


def test_span_figures_by_hand() -> None:
    examples = [example(OK, ERROR, IGNORED), example(OK, ERROR, OK)]
    metrics = span_metrics(examples, [scored(0.9, 0.2, 0.1), scored(0.4, 0.6, 0.8)])
    # Counted: ok .9, error .2, ok .4, error .6, ok .8. Predicted: ok, error, error, ok, ok.
    assert metrics["n_segments"] == 5
    assert metrics["accuracy"] == pytest.approx(3 / 5)
    # As "ok": 2 true, 1 false, 1 missed. As "error": 1 true, 1 false, 1 missed.
    assert metrics["f1_ok"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert metrics["f1_error"] == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))
    # Of the 3 x 2 (ok, error) pairs all are in order but (.4, .6).
    assert metrics["auc"] == pytest.approx(5 / 6)
    expected = -sum(map(math.log, (0.9, 0.8, 0.4, 0.4, 0.8))) / 5
    assert metrics["loss"] == pytest.approx(expected)
    # Each probability has a bin of its own but .8 and none shares: |p - truth| of each.
    assert metrics["ece"] == pytest.approx((0.1 + 0.2 + 0.6 + 0.6 + 0.2) / 5)


def test_the_calibration_error_averages_within_bins() -> None:
    # In [.8, .9): mean P(ok) .85 of which half is ok; in [.1, .2): .1, not ok.
    examples = [example(OK, ERROR, ERROR)]
    assert span_metrics(examples, [scored(0.81, 0.89, 0.1)])["ece"] == pytest.approx((2 * 0.35 + 0.1) / 3)


def test_certainty_falls_into_the_last_bin() -> None:
    (only,) = calibration_bins(np.array([1.0, 0.95]), np.array([True, False]))
    assert (only.count, only.probability, only.ok_share) == (2, 0.975, 0.5)


def test_the_weighted_loss_by_hand() -> None:
    weights = np.array([3.0, 1.0], dtype=np.float32)  # error, ok
    found = weighted_loss([example(OK, ERROR, IGNORED)], [scored(0.9, 0.2, 0.5)], weights)
    assert found == pytest.approx((-math.log(0.9) - 3 * math.log(0.8)) / 4)
    assert weighted_loss([example(IGNORED)], [scored(0.5)], weights) is None


def test_one_class_has_no_auc() -> None:
    metrics = span_metrics([example(OK)], [scored(0.9)])
    assert metrics["auc"] is None
    assert metrics["f1_error"] == 0.0


def test_nothing_counted_has_no_figures() -> None:
    assert span_metrics([example(IGNORED)], [scored(0.9)])["accuracy"] is None
    assert span_metrics([], [])["n_segments"] == 0


def test_certain_and_wrong_is_finite() -> None:
    loss = span_metrics([example(OK)], [scored(0.0)])["loss"]
    assert loss is not None
    assert math.isfinite(loss)


def test_pair_figures_by_hand() -> None:
    scores = [ItemScore((), value) for value in (1.0, 0.0, 3.0, 3.0)]
    first = compared(2, (0, 1))
    second = compared(2, (0, 1), (1, 0))
    metrics = pair_metrics([first, second], scores)
    # A tie is no win.
    assert metrics["n_pairs"] == 3
    assert metrics["accuracy"] == pytest.approx(1 / 3)
    assert metrics["loss"] == pytest.approx((math.log(1 + math.exp(-1)) + math.log(2)) / 2)


def test_no_pairs_have_no_figures() -> None:
    metrics = pair_metrics([compared(1)], [ItemScore((), 1.0)])
    assert metrics == {"n_pairs": 0, "accuracy": None, "loss": None}
