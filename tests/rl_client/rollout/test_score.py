from pathlib import Path

import httpx
import pytest
import torch

from reward_proto import Calibration, ErrorCode, Granularity, ModelKind
from rl_client.api import RetryPolicy, RewardClient
from rl_client.api.errors import UnauthenticatedError, UnknownModelError
from rl_client.api.testing import FakeModel, FakeRewardService
from rl_client.errors import TooManyFailedScoresError
from rl_client.rollout.decode import decode_with_offsets
from rl_client.rollout.prompts import pad_rows
from rl_client.rollout.score import RewardScorer, open_client, open_scorer
from rl_client.rollout.stages import Prompt, Rollout, TokenBatch
from rl_client.training.config import ServiceSettings
from rl_client.training.settings_rewards import PenaltySettings, RewardSettings, Shaping

SPAN = FakeModel(
    "span",
    score=lambda text: 1.0 if "good" in text else 0.25,
    granularity=Granularity.SUB_SENTENCE,
    kind=ModelKind.TOKEN_CLASSIFICATION,
    calibration=Calibration(mean=0.5, std=0.5),
)
WHOLE = FakeModel("whole", score=lambda text: 1.0 + len(text))
REWARDS = (
    RewardSettings(model="span", weight=2.0, shaping=Shaping.CENTERED),
    RewardSettings(model="whole", weight=0.1),
)
NO_WAIT = RetryPolicy(retry_for_s=5.0, max_faults=2, initial_delay_s=0.0)


@pytest.fixture
def rollout(tokenizer):
    """Three responses of one prompt: two segments and eos; cut off without eos; only eos."""
    texts = ("red good , bad one .", "blue", "")
    eos = [tokenizer.eos_token_id]
    rows = [
        tokenizer(text, add_special_tokens=False)["input_ids"] + tail
        for text, tail in zip(texts, (eos, [], eos), strict=True)
    ]
    ids, mask = pad_rows(rows, tokenizer.pad_token_id)
    decoded = [decode_with_offsets(tokenizer, row) for row in rows]
    prompt = Prompt("p", "why ?", {"question": "why"}, (5, 1))
    return Rollout(
        prompts=(prompt,),
        tokens=TokenBatch(
            torch.tensor([[5, 1]]), torch.ones(1, 2, dtype=torch.bool), torch.zeros(3, dtype=torch.long), ids, mask
        ),
        finished=(True, False, True),
        texts=tuple(text for text, _ in decoded),
        offsets=tuple(offsets for _, offsets in decoded),
    )


@pytest.fixture
def service():
    return FakeRewardService([SPAN, WHOLE])


@pytest.fixture
def client(service):
    with RewardClient("http://reward", retry=NO_WAIT, transport=service.transport) as client:
        yield client


def test_rewards_sit_on_the_last_token_of_each_segment(client, rollout):
    """`red good ,` ends at token 2, `bad one .` at token 5, the eos is token 6; the text has 20 characters."""
    scored = RewardScorer(client, REWARDS, max_failed_share=0.0).score(rollout)
    good, bad = 2.0 * (1.0 - 0.5), 2.0 * (0.25 - 0.5)
    expected = torch.tensor(
        [
            [0, 0, good, 0, 0, bad, 0.1 * 21],
            [bad + 0.1 * 5, 0, 0, 0, 0, 0, 0],  # both models' rewards meet on the one token
            [0.1 * 1, 0, 0, 0, 0, 0, 0],  # blank: no segments, but the sequence model scores it like any text
        ]
    )
    torch.testing.assert_close(scored.token_rewards, expected)
    assert scored.failed.tolist() == [False, False, False]
    assert scored.rewards["span"] == (pytest.approx(good + bad), pytest.approx(bad), 0)
    assert scored.scores["span"] == (pytest.approx(0.625), 0.25, None)
    assert len(scored.latencies_s) == 1


def test_requests_carry_prompt_fields_and_pinned_versions(client, service, rollout):
    RewardScorer(client, REWARDS, max_failed_share=0.0).score(rollout)
    (request,) = service.requests
    assert request.models == ["span@000000000000", "whole@000000000000"]
    assert [item.id for item in request.items] == ["p/0", "p/1", "p/2"]
    assert {item.prompt for item in request.items} == {"why ?"}
    assert request.items[0].fields == {"question": "why"}
    assert [item.response for item in request.items] == list(rollout.texts)


def test_a_failed_score_is_left_out_and_counted_never_zero(client, service, rollout):
    service.fail_scores("whole", ErrorCode.TOO_LONG, item_id="p/0", times=9)
    scored = RewardScorer(client, REWARDS, max_failed_share=0.5).score(rollout)
    assert scored.failed.tolist() == [True, False, False]
    assert scored.rewards["span"][0] is None
    assert scored.rewards["whole"][0] is None
    assert scored.scores["whole"][0] is None
    assert scored.token_rewards[0].abs().sum() == 0


def test_too_many_failed_scores_stop(client, service, rollout):
    service.fail_scores("whole", ErrorCode.TOO_LONG, times=9)
    with pytest.raises(TooManyFailedScoresError, match=r"3 of 3 responses got no score.*too_long"):
        RewardScorer(client, REWARDS, max_failed_share=0.4).score(rollout)


def test_a_request_refused_for_its_scores_fails_its_own_responses(client, service, rollout):
    """Two requests of two and one items; the service refuses the second as a whole."""
    client.max_items_per_request = 2
    for model in ("span", "whole"):
        service.fail_scores(model, ErrorCode.TOO_LONG, item_id="p/2", times=9)
    scored = RewardScorer(client, REWARDS, max_failed_share=0.5).score(rollout)
    assert scored.failed.tolist() == [False, False, True]
    assert scored.scores["whole"][:2] == (21.0, 5.0)
    assert scored.scores["whole"][2] is None


def test_a_service_that_refuses_everybody_is_no_failed_score(client, service, rollout):
    scorer = RewardScorer(client, REWARDS, max_failed_share=1.0)
    service.fail_next(ErrorCode.UNAUTHENTICATED)
    with pytest.raises(UnauthenticatedError):
        scorer.score(rollout)


@pytest.fixture
def functions(tmp_path, monkeypatch):
    """`brevity` gives no score of `blue`."""
    text = "def brevity(samples):\n    return [None if s.response == 'blue' else -s.length_tokens for s in samples]\n"
    (tmp_path / "functions_for_score.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_functions_score_beside_the_service(client, service, rollout, functions):
    rewards = (*REWARDS, RewardSettings(function="functions_for_score:brevity", weight=0.5))
    scorer = RewardScorer(client, rewards, max_failed_share=0.5)
    assert scorer.versions["brevity"].endswith(" python")
    scored = scorer.score(rollout)
    assert scored.failed.tolist() == [False, True, False]
    assert scored.scores["brevity"] == (-7.0, None, -1.0)
    assert scored.rewards["brevity"] == (-3.5, None, -0.5)
    assert scored.rewards["whole"][1] is None
    assert float(scored.token_rewards[0, 6]) == pytest.approx(0.1 * 21 - 3.5)  # both on the last token
    assert [request.models for request in service.requests] == [["span@000000000000", "whole@000000000000"]]


def test_functions_alone_need_no_service(rollout, functions):
    rewards = [RewardSettings(function="functions_for_score:brevity")]
    few = pytest.raises(TooManyFailedScoresError, match="brevity gave no score: None")
    with open_scorer(None, rewards, penalties=PenaltySettings(truncation=1.0)) as scorer, few:
        scorer.score(rollout)
    scored = RewardScorer(None, rewards, max_failed_share=0.5).score(rollout)
    assert set(scored.scores) == {"brevity"}
    assert scored.latencies_s == ()


def test_penalties_are_sources_of_reward(client, rollout):
    scorer = RewardScorer(client, REWARDS, max_failed_share=0.0, penalties=PenaltySettings(truncation=3.0))
    scored = scorer.score(rollout)
    assert [source.name for source in scored.sources] == ["span", "whole", "truncation_penalty"]
    assert scored.rewards["truncation_penalty"] == (0.0, -3.0, 0.0)
    assert "truncation_penalty" not in scored.scores


def test_a_version_that_changes_in_mid_run_stops(client, service, rollout):
    scorer = RewardScorer(client, REWARDS, max_failed_share=1.0)
    scorer.score(rollout)
    service.models["span"] = FakeModel(
        "span", score=SPAN.score, granularity=SPAN.granularity, kind=SPAN.kind, version="111111111111"
    )
    with pytest.raises(UnknownModelError):
        scorer.score(rollout)


def test_without_rewards_every_model_scores(client, rollout):
    scored = RewardScorer(client, (), max_failed_share=0.0).score(rollout)
    assert set(scored.scores) == {"span", "whole"}
    assert not scored.rewards
    assert scored.token_rewards.abs().sum() == 0


def test_versions_name_the_numbers(client):
    assert RewardScorer(client, REWARDS, max_failed_share=0.0).versions == {
        "span": "000000000000 fake-fp32",
        "whole": "000000000000 fake-fp32",
    }


def test_run_and_step_are_told(service, rollout):
    told = []

    def answer(request):
        told.append((request.headers.raw, request.url.path))
        return service.transport.handle_request(request)

    output = Path("/runs") / ("x" * 300) / "a\nb"
    with open_client(ServiceSettings(url="http://reward"), httpx.MockTransport(answer), output) as client:
        RewardScorer(client, REWARDS, max_failed_share=0.0).score(rollout, 7)
    (headers,) = [dict(raw) for raw, path in told if path == "/v1/score"]
    assert headers[b"X-Client-Run"].decode() == "x" * 252 + "/a?b"
    assert headers[b"X-Client-Step"] == b"7"
