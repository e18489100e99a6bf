import math

import pytest
from pydantic import ValidationError

from reward_proto import ErrorCode, Granularity, ModelKind, ScoreItem
from rl_client.api import RetryPolicy, RewardClient
from rl_client.api.errors import STATUS_ERRORS
from rl_client.api.testing import FakeModel, FakeRewardService, split_text

URL = "http://reward"


@pytest.mark.parametrize(
    ("granularity", "pieces"),
    [
        (Granularity.SUB_SENTENCE, ["One, ", "two. ", "Three"]),
        (Granularity.SENTENCE, ["One, two. ", "Three"]),
        (Granularity.SEQUENCE, ["One, two. Three"]),
        (Granularity.PARAGRAPH, ["One, two. Three"]),
    ],
)
def test_segments_are_trimmed_and_cover_the_text(granularity: Granularity, pieces: list[str]) -> None:
    text = "  One, two. Three \n"
    spans = split_text(text, granularity)
    assert [text[start:end] for start, end in spans] == [piece.strip() for piece in pieces]


@pytest.mark.parametrize("granularity", Granularity)
def test_blank_text_has_no_segments(granularity: Granularity) -> None:
    assert split_text(" \n\n ", granularity) == split_text("", granularity) == []


def test_scores_labels_logits_and_means_are_those_of_the_function() -> None:
    classifier = FakeModel(
        "polite",
        score=lambda text: 0.9 if "please" in text else 0.1,
        granularity=Granularity.SENTENCE,
        kind=ModelKind.TOKEN_CLASSIFICATION,
    )
    service = FakeRewardService([classifier])
    with RewardClient(URL, transport=service.transport) as client:
        (result,) = client.score([ScoreItem(response="Come. Come, please.")], return_logits=True)
    score = result.scores["polite"]
    assert score.segments is not None
    assert [(s.start, s.end, s.score, s.label, s.logits) for s in score.segments] == [
        (0, 5, 0.1, "error", [0.1]),
        (6, 19, 0.9, "ok", [0.9]),
    ]
    assert score.sequence_score == pytest.approx(0.5)


def test_a_blank_response_has_a_score_from_sequence_models_alone() -> None:
    models = [
        FakeModel("whole", score=lambda text: -1.0),
        FakeModel("sent", score=len, granularity=Granularity.SENTENCE),
    ]
    with RewardClient(URL, transport=FakeRewardService(models).transport) as client:
        (result,) = client.score([ScoreItem(response="")])
    assert (result.scores["whole"].segments, result.scores["whole"].sequence_score) == ([], -1.0)
    assert (result.scores["sent"].segments, result.scores["sent"].sequence_score) == ([], None)


def test_the_callers_own_segments_are_scored() -> None:
    service = FakeRewardService([FakeModel("m", score=len, granularity=Granularity.SENTENCE)])
    item = ScoreItem(response="a. b. c.", segments={Granularity.SENTENCE: [(0, 5), (6, 8)]})
    with RewardClient(URL, transport=service.transport) as client:
        (result,) = client.score([item])
    assert [s.score for s in result.scores["m"].segments or []] == [5.0, 2.0]


@pytest.mark.parametrize("code", ErrorCode)
def test_every_scripted_code_raises_its_exception_once(code: ErrorCode) -> None:
    service = FakeRewardService([FakeModel("m", score=len)])
    service.fail_next(code)
    with RewardClient(URL, transport=service.transport, retry=RetryPolicy(retry_for_s=0.0)) as client:
        with pytest.raises(STATUS_ERRORS[code]):
            client.score([ScoreItem(response="x")])
        assert client.score([ScoreItem(response="x")])[0].scores["m"].sequence_score == 1.0


def test_it_refuses_what_a_service_refuses() -> None:
    service = FakeRewardService([FakeModel("m", score=len)])
    with RewardClient(URL, transport=service.transport) as client:
        for models in (["nobody"], ["m@old"]):
            with pytest.raises(STATUS_ERRORS[ErrorCode.UNKNOWN_MODEL]):
                client.score([ScoreItem(response="x")], models)
    assert service.requests == []


def test_a_score_that_is_no_number_cannot_be_sent() -> None:
    service = FakeRewardService([FakeModel("m", score=lambda text: math.nan)])
    with RewardClient(URL, transport=service.transport) as client, pytest.raises(ValidationError):
        client.score([ScoreItem(response="x")])
