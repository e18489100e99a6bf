from dataclasses import fields

import pytest
import torch

from reward_proto import ErrorCode
from rl_client.api import ApiConnectionError, RewardClient
from rl_client.api.testing import FakeModel, FakeRewardService
from rl_client.errors import ConfigError, OtherProcessError, TooManyFailedScoresError, VersionChangedError
from rl_client.rollout.generate import generate
from rl_client.rollout.joining import Share
from rl_client.rollout.score import RewardScorer
from rl_client.rollout.score_stream import ScoreStream
from rl_client.training.background import Background
from rl_client.training.config import GenerationSettings, TrainConfig
from rl_client.training.experience import estimate
from rl_client.training.joint_rollout import JointRollout, check_shares, check_versions
from rl_client.training.models import freeze_copy
from rl_client.training.processes import Processes
from rl_client.training.rollout_source import SampledRollout
from rl_client.training.settings_processes import Scoring
from rl_client.training.settings_rewards import RewardSettings
from tests.rl_client.threads_as_processes import run_threads

GENERATION = GenerationSettings(max_new_tokens=6, samples_per_prompt=2)
PROBED_TOKENS = 7


class Source:
    """Samples when it is asked, and has scores asked for if each process asks for its own."""

    def __init__(self, sample, scores, policy, scoring):
        self._sample, self._scores, self._policy, self._scoring = sample, scores, policy, scoring

    def take(self, step):
        rollout = self._sample()
        if self._scoring is Scoring.OWN:
            self._scores.send(rollout)
        return SampledRollout(rollout, self._scores, self._policy, 0.0)


@pytest.fixture
def service():
    return FakeRewardService([FakeModel("short", score=lambda text: -float(len(text.split())))])


@pytest.fixture
def sample(policy, tokenizer, prompts):
    """A process's own rollout."""

    def own(processes):
        share = Share.of(len(prompts), processes.rank, processes.count)
        mine = prompts[share.first : share.first + share.count]
        return generate(policy, tokenizer, mine, GENERATION, seed=1, share=share)

    return own


@pytest.fixture
def step(service, policy, value, sample):
    """A step up to the update, as one of some processes."""
    reference = freeze_copy(policy)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.05 * torch.sin(torch.arange(weight.numel(), dtype=torch.float32)).view_as(weight))

    def take(processes, scoring=Scoring.OWN, max_failed_share=0.25):
        with (
            RewardClient("http://reward", transport=service.transport) as client,
            Background(1, "scoring") as background,
        ):
            scorer = RewardScorer(client, [RewardSettings(model="short")], max_failed_share=max_failed_share)
            scores = ScoreStream(scorer, background.submit)
            source = Source(lambda: sample(processes), scores, policy, scoring)
            joint = JointRollout(processes, source, 1, scoring)
            found = joint.estimate(
                lambda: estimate(
                    policy,
                    reference,
                    value,
                    joint.mine.tokens,
                    temperature=1.0,
                    exact_kl_tokens=PROBED_TOKENS,
                    probe=joint.probe(PROBED_TOKENS),
                )
            )
            return joint.scored(scorer), found

    return take


def alone(step):
    return step(Processes(torch.device("cpu")))


@pytest.mark.parametrize("scoring", list(Scoring))
def test_parts_are_the_whole_in_every_process(step, service, scoring):
    scored, estimates = alone(step)
    service.requests.clear()
    for own_scored, own_estimates in run_threads(3, lambda processes: step(processes, scoring)):
        assert own_scored.rollout.texts == scored.rollout.texts
        assert torch.equal(own_scored.token_rewards, scored.token_rewards)
        assert own_scored.scores == scored.scores
        assert len(own_scored.latencies_s) == (3 if scoring is Scoring.OWN else 1)
        for name in ("logprobs", "ref_logprobs", "values", "entropy"):
            torch.testing.assert_close(getattr(own_estimates, name), getattr(estimates, name), rtol=1e-4, atol=1e-5)
        assert own_estimates.exact_kl == pytest.approx(estimates.exact_kl, rel=1e-4)
    assert len(service.requests) == (3 if scoring is Scoring.OWN else 1)


def test_estimates_have_no_field_that_is_left_behind(step):
    _, estimates = alone(step)
    assert {field.name for field in fields(estimates)} == {"logprobs", "ref_logprobs", "values", "entropy", "exact_kl"}


def test_a_process_that_fails_ends_all(sample):
    def fail_in_one(processes):
        def own():
            if processes.rank == 1:
                raise ApiConnectionError("gone")
            return sample(processes)

        return JointRollout(processes, Source(own, None, None, Scoring.GATHERED), 1)

    first, second = run_threads(2, fail_in_one)
    assert isinstance(first, OtherProcessError)
    assert str(first) == "process 1 failed: ApiConnectionError: gone"
    assert isinstance(second, ApiConnectionError)


def test_failed_scores_count_over_all_processes(step, service, prompts):
    """Two of eight responses fail: a quarter of the step, though half of what the second process sampled."""
    for sample_number in (0, 1):
        service.fail_scores("short", ErrorCode.TOO_LONG, item_id=f"{prompts[2].id}/{sample_number}")
    for scored, _ in run_threads(2, step):
        assert scored.failed.tolist() == [False] * 4 + [True] * 2 + [False] * 2
    for sample_number in (0, 1):
        service.fail_scores("short", ErrorCode.TOO_LONG, item_id=f"{prompts[2].id}/{sample_number}")
    for error in run_threads(2, lambda processes: step(processes, max_failed_share=0.2)):
        assert isinstance(error, TooManyFailedScoresError)
        assert "2 of 8" in str(error)


def test_versions_must_be_one():
    same = run_threads(2, lambda processes: check_versions({"short": "1"}, processes))
    assert same == [None, None]
    for error in run_threads(2, lambda processes: check_versions({"short": str(processes.rank)}, processes)):
        assert isinstance(error, VersionChangedError)


def test_every_process_needs_a_prompt(tmp_path):
    config = TrainConfig(
        output=tmp_path,
        policy=tmp_path,
        prompts=tmp_path,
        rewards=[{"function": "m:f"}],
        ppo={"steps": 1, "prompts_per_step": 2, "minibatch_size": 1},
    )
    check_shares(config, Processes(torch.device("cpu"), rank=1, count=2))
    with pytest.raises(ConfigError, match="2 prompts for 3 processes"):
        check_shares(config, Processes(torch.device("cpu"), rank=1, count=3))
