import asyncio
import math
from collections.abc import Sequence

import pytest

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.core.text_reward import Result, ask, check_result
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


class Picky:
    """Fails every call that holds a response it cannot score; `sizes` has how many each call was for."""

    def __init__(self, faults: dict[str, BaseException]) -> None:
        self.faults = faults
        self.sizes: list[int] = []

    async def score(self, responses: Sequence[Segmented]) -> Sequence[Result]:
        self.sizes.append(len(responses))
        for one in responses:
            if one.item.prompt in self.faults:
                raise self.faults[one.item.prompt]
        return [scored(0.25, 0.75) for _ in responses]

    async def close(self) -> None:
        pass


def test_a_call_that_fails_is_made_again_for_each_response_alone() -> None:
    reward = Picky({"long": TooLongError("too long"), "odd": KeyError("odd"), "end": SystemExit(3)})
    responses = [Segmented(TextItem(prompt, "a. b."), SPANS) for prompt in ("fine", "long", "odd", "end", "fine too")]
    results = asyncio.run(ask(reward, card(ModelKind.TOKEN_CLASSIFICATION), responses))
    assert reward.sizes == [5, 1, 1, 1, 1, 1]
    assert [type(result) for result in results] == [
        ItemScore,
        TooLongError,
        ModelFailedError,
        ModelFailedError,
        ItemScore,
    ]
    assert str(results[2]) == "the reward failed: KeyError"


def test_a_call_that_succeeds_is_made_once() -> None:
    reward = Picky({})
    results = asyncio.run(ask(reward, card(ModelKind.TOKEN_CLASSIFICATION), [RESPONSE] * 3))
    assert reward.sizes == [3]
    assert results == [scored(0.25, 0.75)] * 3
