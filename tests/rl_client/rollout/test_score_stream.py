import random
from concurrent.futures import Future

import pytest
import torch

from reward_proto import Granularity, ModelKind
from rl_client.api import RetryPolicy, RewardClient
from rl_client.api.testing import FakeModel, FakeRewardService
from rl_client.rollout.generate import Delivery, generate
from rl_client.rollout.score import RewardScorer
from rl_client.rollout.score_stream import ScoreStream
from rl_client.training.background import Background
from rl_client.training.config import GenerationSettings
from rl_client.training.settings_rewards import RewardSettings

SAMPLING = GenerationSettings(max_new_tokens=8, samples_per_prompt=3)


@pytest.fixture
def service():
    words = FakeModel(
        "words", score=lambda text: len(text) % 7 / 7, granularity=Granularity.SUB_SENTENCE,
        kind=ModelKind.TOKEN_CLASSIFICATION,
    )  # fmt: skip
    return FakeRewardService([words, FakeModel("length", score=len)])


@pytest.fixture
def scorer(service):
    rewards = (RewardSettings(model="words", weight=0.5), RewardSettings(model="length", weight=0.1))
    with RewardClient("http://reward", retry=RetryPolicy(retry_for_s=0.0), transport=service.transport) as client:
        yield RewardScorer(client, rewards, max_failed_share=0.0)


class Delayed:
    """Holds work back until the end, then does it in a random order."""

    def __init__(self, seed: int) -> None:
        self.held: list = []
        self._rng = random.Random(seed)

    def __call__(self, work):
        self.held.append((Future(), work))
        return self.held[-1][0]

    def run(self) -> None:
        self._rng.shuffle(self.held)
        for future, work in self.held:
            future.set_result(work())


@pytest.mark.parametrize("seed", range(3))
def test_parts_answered_in_any_order_give_the_rewards_of_one_request(policy, tokenizer, prompts, scorer, service, seed):
    delayed = Delayed(seed)
    stream = ScoreStream(scorer, delayed)
    rollout = generate(policy, tokenizer, prompts, SAMPLING, seed=seed, delivery=Delivery(stream.send, share=0.2))
    delayed.run()
    answers, asking_s = stream.answers(rollout)
    found = scorer.place(rollout, answers)
    assert len(delayed.held) > 1
    assert sorted(item.id for request in service.requests for item in request.items) == sorted(
        f"{rollout.prompt_of(row).id}/{row}" for row in range(12)
    )
    expected = scorer.score(rollout)
    assert torch.equal(found.token_rewards, expected.token_rewards)
    assert found.scores == expected.scores
    assert found.rewards == expected.rewards
    assert found.rollout is rollout
    assert asking_s > 0


def test_an_error_ends_the_sampling_that_goes_on(policy, tokenizer, prompts, scorer):
    def fail(rollout, step):
        raise ConnectionError("gone")

    scorer.request = fail
    with Background(0, "scoring") as background:
        stream = ScoreStream(scorer, background.submit)
        batches = SAMPLING.model_copy(update={"batch_tokens": 1})
        parts = []

        def send(part):
            parts.append(part)
            stream.send(part)

        with pytest.raises(ConnectionError, match="gone"):
            generate(policy, tokenizer, prompts, batches, seed=0, delivery=Delivery(send))
    assert len(parts) == 2


def test_an_error_of_the_last_part_is_raised_when_it_is_waited_for(policy, tokenizer, prompts, scorer):
    stream = ScoreStream(scorer, Delayed(0))
    rollout = generate(policy, tokenizer, prompts, SAMPLING, seed=0, delivery=Delivery(stream.send))
    stream._submit.held[0][0].set_exception(ConnectionError("gone"))
    with pytest.raises(ConnectionError, match="gone"):
        stream.answers(rollout)


def test_a_response_that_was_not_sent_is_no_zero(policy, tokenizer, prompts, scorer):
    with Background(0, "scoring") as background:
        stream = ScoreStream(scorer, background.submit)
        rollout = generate(policy, tokenizer, prompts, SAMPLING, seed=0)
        with pytest.raises(ValueError, match="0 responses were sent for scores, of 12"):
            stream.answers(rollout)
