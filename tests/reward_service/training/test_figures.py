import math

import numpy as np
import pytest

from reward_service.domain import Encoded, ItemScore, ScoredSpan, Span
from reward_service.training.dataset import PairExample, SpanExample
from reward_service.training.figures import pair_metrics, span_metrics
from reward_service.training.labels import IGNORED, LABELS

ERROR, OK = LABELS.index("error"), LABELS.index("ok")


def encoded() -> Encoded:
    return Encoded(np.zeros(1, dtype=np.int64), ())


def example(*labels: int) -> SpanExample:
    return SpanExample(encoded(), np.array(labels, dtype=np.int64))


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
    first = PairExample((encoded(), encoded()), ((0, 1),))
    second = PairExample((encoded(), encoded()), ((0, 1), (1, 0)))
    metrics = pair_metrics([first, second], scores)
    # A tie is no win.
    assert metrics["n_pairs"] == 3
    assert metrics["accuracy"] == pytest.approx(1 / 3)
    assert metrics["loss"] == pytest.approx((math.log(1 + math.exp(-1)) + math.log(2)) / 2)


def test_no_pairs_have_no_figures() -> None:
    metrics = pair_metrics([PairExample((encoded(),), ())], [ItemScore((), 1.0)])
    assert metrics == {"n_pairs": 0, "accuracy": None, "loss": None}
