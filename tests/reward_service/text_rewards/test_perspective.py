from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import stamina
from starlette.responses import JSONResponse, Response

from reward_proto.score import Granularity
from reward_service.core.segment import segment_text
from reward_service.domain import ItemScore, Segmented, Span, TextItem
from reward_service.errors import InvalidRequestError, ModelFailedError, OverloadedError, ServiceError, TooLongError
from reward_service.text_rewards.perspective import PerspectiveReward
from reward_service.text_rewards.settings import PerspectiveSettings

KEY = "AIzaVerySecret"
Run = Callable[[Awaitable[Any]], Any]


def whole(text: str) -> Segmented:
    return Segmented(TextItem("prompt is bad bad bad bad", text), segment_text(text, Granularity.SEQUENCE))


class Rig:
    def __init__(self, server: Any, run: Run, **settings: Any) -> None:
        given = {"source": "perspective", "name": "t", "base_url": server.url, "requests_per_s": None, **settings}
        self.server = server
        self.reward = PerspectiveReward(PerspectiveSettings.model_validate({"attempts": 3, **given}), KEY)
        self.run = run

    def score(self, text: str) -> ItemScore | ServiceError:
        with stamina.set_testing(True, attempts=3):  # No waits.
            (result,) = self.run(self.reward.score([whole(text)]))
        return result  # type: ignore[no-any-return]


@pytest.fixture
def make_rig(make_server: Any, run: Run, analyze: Any) -> Any:
    made: list[Rig] = []

    def make(answer: Any = analyze, **settings: Any) -> Rig:
        made.append(Rig(make_server(answer), run, **settings))
        return made[-1]

    yield make
    for rig in made:
        run(rig.reward.close())


def test_a_text_scores_one_less_its_toxicity(make_rig: Any) -> None:
    rig = make_rig()
    good, worse = rig.score("All is well."), rig.score("So bad, bad and bad.")
    assert (good.sequence_score, good.segments[0].label) == (1.0, "ok")
    assert worse.sequence_score == 0.25
    (segment,) = worse.segments
    assert (segment.span, segment.score, segment.label, segment.logits) == (Span(0, 20), 0.25, "toxic", (0.75,))


def test_asks_as_documented(make_rig: Any) -> None:
    rig = make_rig(language="de", attribute="SEVERE_TOXICITY", do_not_store=False)
    rig.score("Käse.")
    (asked,) = rig.server.asked
    assert (asked.path, asked.query) == ("/v1alpha1/comments:analyze", "")
    assert asked.headers["x-goog-api-key"] == KEY
    assert asked.body == {
        "comment": {"text": "Käse.", "type": "PLAIN_TEXT"},
        "requestedAttributes": {"SEVERE_TOXICITY": {}},
        "languages": ["de"],
        "doNotStore": False,
    }


def test_nothing_is_not_toxic_and_not_asked(make_rig: Any) -> None:
    rig = make_rig()
    assert rig.score(" \n") == ItemScore((), 1.0)
    assert rig.server.asked == []


def test_a_text_over_the_limit_is_too_long_before_it_is_sent(make_rig: Any) -> None:
    rig = make_rig()
    assert rig.score("é" * 10_240).sequence_score == 1.0  # 20,480 bytes.
    with pytest.raises(TooLongError, match="20482 bytes"):
        rig.score("é" * 10_241)
    assert len(rig.server.asked) == 1


def test_a_text_that_is_not_unicode_is_the_callers_fault(make_rig: Any) -> None:
    with pytest.raises(InvalidRequestError, match="character 3"):
        make_rig().score("abc\ud800")


def test_what_the_api_refuses_about_a_text_is_the_callers_fault(make_rig: Any, google_error: Any) -> None:
    rig = make_rig()
    with pytest.raises(InvalidRequestError, match="LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE"):
        rig.score("nihongo")
    rig.server.script = [google_error(400, "INVALID_ARGUMENT", "Comment text too long.", "COMMENT_TOO_LONG")]
    with pytest.raises(TooLongError):
        rig.score("short")
    assert len(rig.server.asked) == 2


def test_a_refused_key_is_no_fault_of_the_text_and_stays_secret(make_rig: Any, google_error: Any) -> None:
    rig = make_rig()
    rig.server.script = [
        google_error(403, "PERMISSION_DENIED", f"The API is disabled for {KEY}."),
        google_error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    ]
    with pytest.raises(ModelFailedError, match=r"status 403: The API is disabled for \*\*\*\."):
        rig.score("a")
    with pytest.raises(ModelFailedError, match="status 400: API key not valid"):
        rig.score("a")


def test_a_burst_of_429_is_sat_out(make_rig: Any, busy: Any) -> None:
    rig = make_rig()
    rig.server.script = [busy(), busy()]
    assert rig.score("bad").sequence_score == 0.75
    rig.server.script = [busy(), busy(), busy()]
    with pytest.raises(OverloadedError, match="Quota exceeded"):
        rig.score("bad bad")


def _summary(value: Any) -> Response:
    return JSONResponse({"attributeScores": {"TOXICITY": {"summaryScore": {"value": value, "type": "PROBABILITY"}}}})


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Response("<html>"), "Invalid JSON"),
        (Response("[]"), "body: Input should be an object"),
        (JSONResponse({"languages": ["en"]}), "attributeScores: Field required"),
        (JSONResponse({"attributeScores": {"INSULT": {"summaryScore": {"value": 0.5}}}}), "no score for TOXICITY"),
        (JSONResponse({"attributeScores": {"TOXICITY": {}}}), "summaryScore: Field required"),
        (_summary(1.5), "less than or equal to 1"),
        (_summary(-0.1), "greater than or equal to 0"),
        (_summary("0.5"), "valid number"),
        (_summary(None), "valid number"),
        (Response('{"attributeScores": {"TOXICITY": {"summaryScore": {"value": NaN}}}}'), "value"),
    ],
)
def test_a_malformed_reply_is_an_error_and_never_a_score(make_rig: Any, reply: Response, told: str) -> None:
    rig = make_rig()
    rig.server.script = [reply] * 3
    with pytest.raises(ModelFailedError, match=told):
        rig.score("bad")
    assert len(rig.server.asked) == 3
