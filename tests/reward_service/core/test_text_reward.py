import math

import pytest

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.core.text_reward import check_result
from reward_service.domain import Head, ItemScore, ModelCard, ScoredSpan, Segmented, Span, TextItem
from reward_service.errors import ModelFailedError, TooLongError

SPANS = (Span(0, 2), Span(3, 5))
RESPONSE = Segmented(TextItem("", "a. b."), SPANS)


def card(kind: ModelKind) -> ModelCard:
    labels = ("ok", "bad") if kind.is_classifier else ()
    head = Head(kind, labels, "ok" if labels else "")
    return ModelCard("m", "v", "v", (), head, Granularity.SENTENCE, "en", "", 0, "python")


def scored(*scores: float, whole: float | None = 0.5, spans: tuple[Span, ...] = SPANS) -> ItemScore:
    return ItemScore(tuple(ScoredSpan(span, score, None, ()) for span, score in zip(spans, scores, strict=True)), whole)


def test_what_is_sound_passes_as_it_is() -> None:
    result = scored(0.0, 1.0)
    assert check_result(card(ModelKind.TOKEN_CLASSIFICATION), RESPONSE, result) is result
    regression = scored(-7.0, 3.0, whole=-4.0)
    assert check_result(card(ModelKind.SEQUENCE_REGRESSION), RESPONSE, regression) is regression
    error = TooLongError("too long")
    assert check_result(card(ModelKind.TOKEN_CLASSIFICATION), RESPONSE, error) is error


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (scored(0.5, math.nan), "NaN or infinity"),
        (scored(math.inf, 0.5), "NaN or infinity"),
        (scored(0.5, 0.5, whole=-math.inf), "NaN or infinity"),
        (scored(0.5, 1.01), r"outside \[0, 1\]"),
        (scored(-0.01, 0.5), r"outside \[0, 1\]"),
        (scored(0.5, spans=SPANS[:1]), "1 segments of 2"),
        (scored(0.5, 0.5, spans=(Span(0, 2), Span(3, 4))), "or other ones"),
        (scored(0.5, 0.5, whole=None), "no score for the whole"),
    ],
)
def test_what_cannot_be_meant_becomes_an_error(result: ItemScore, told: str) -> None:
    found = check_result(card(ModelKind.TOKEN_CLASSIFICATION), RESPONSE, result)
    assert isinstance(found, ModelFailedError)
    with pytest.raises(ModelFailedError, match=told):
        raise found
