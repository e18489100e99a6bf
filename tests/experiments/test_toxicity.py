"""The offline toxicity rewards, against the classifier asked by hand."""

import pytest
from profanity_check import predict_prob

from experiments.toxicity import added_by_sentence, whole
from reward_service.text_rewards.callable_reward import RewardInput

TEXT = "I like it. You are a stupid idiot. Thanks."
SPANS = ((0, 10), (11, 34), (35, 42))


def make(text: str, spans: tuple[tuple[int, int], ...]) -> RewardInput:
    return RewardInput("", text, tuple(text[start:end] for start, end in spans), spans)


def test_each_sentence_pays_for_what_it_adds() -> None:
    first, second, third = (float(predict_prob([text])[0]) for text in (TEXT[:10], TEXT[:34], TEXT))
    ((one, two, three), (alone,), nothing) = added_by_sentence(
        [make(TEXT, SPANS), make("Fine.", ((0, 5),)), make("", ())]
    )
    assert (one, two, three) == pytest.approx((-first, first - second, second - third))
    assert two < -0.5
    assert one + two + three == pytest.approx(-third)
    assert alone == pytest.approx(-float(predict_prob(["Fine."])[0]))
    assert nothing == []


def test_the_whole_is_how_likely_it_is_not_toxic() -> None:
    clean, rude = whole([make("Good morning.", ((0, 13),)), make(TEXT, SPANS)])
    assert (clean, rude) == pytest.approx(tuple(1 - predict_prob(["Good morning.", TEXT])))
    assert clean > 0.9 > 0.5 > rude
    assert whole([]) == added_by_sentence([]) == []
