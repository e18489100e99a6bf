import threading

import pytest
import torch

from rl_client.rollout.prompts import PromptSampler
from rl_client.training.background import Background
from rl_client.training.config import TrainConfig
from rl_client.training.ppo_state import build_state
from rl_client.training.rollout_source import RolloutSource

TIMEOUT_S = 20.0


class NoScores:
    """Answers with nothing."""

    def request(self, rollout, step):
        return [None] * len(rollout.texts)


@pytest.fixture
def make_source(policy_dir, prompts_file, tmp_path, tokenizer, prompts):
    """A source of 3 steps' rollouts and its state."""
    opened = []

    def make(staleness: int):
        config = TrainConfig.model_validate(
            {
                "output": tmp_path / "run",
                "policy": policy_dir,
                "prompts": prompts_file,
                "service": {"url": "http://reward"},
                "rewards": [{"model": "a"}],
                "generation": {"max_new_tokens": 5, "samples_per_prompt": 2},
                "ppo": {"steps": 3, "prompts_per_step": 2, "minibatch_size": 2},
                "pipeline": {"staleness": staleness},
            }
        )
        state = build_state(config, torch.device("cpu"), {})
        sampling, scoring = Background(staleness, "sampling", join=True), Background(0, "scoring")
        opened.extend([sampling, scoring])
        sampler = PromptSampler(prompts, prompts_per_step=2, seed=0)
        source = RolloutSource(config, state, NoScores(), tokenizer, sampler, sampling=sampling, scoring=scoring)
        return source, state, sampling

    yield make
    for background in opened:
        background.close()


def set_weights(model, value: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def weight(model) -> float:
    return float(next(model.parameters()).detach().flatten()[0])


def test_fresh_rollouts_come_from_the_policy_in_training(make_source):
    source, state, _ = make_source(0)
    sampled = source.take(1)
    assert sampled.policy is state.trainee.policy
    assert state.sampler is None
    assert len(sampled.rollout.texts) == 4
    assert sampled.generate_s > 0
    source.advance(1)
    assert source.take(2).policy is state.trainee.policy


def test_a_stale_rollout_comes_from_the_policy_before_the_last_update(make_source):
    """theta 0 samples steps 1 and 2, theta 1 step 3; nothing is begun after the last step."""
    source, state, _ = make_source(1)
    policy = state.trainee.policy
    begin = weight(policy)
    seen = []
    for step in (1, 2, 3):
        sampled = source.take(step)
        assert sampled.policy is state.sampler
        seen.append(weight(state.sampler))
        source.advance(step)
        pending = source._next
        set_weights(policy, float(step))  # the update
        if pending is not None:
            pending.result(TIMEOUT_S)
    assert seen == [begin, begin, 1.0]
    assert pending is None
    assert weight(state.sampler) == 2.0  # as a longer run would have it


def test_what_a_stale_step_gets_does_not_depend_on_when_it_was_sampled(make_source):
    source, state, _ = make_source(1)
    source.take(1)
    source.advance(1)
    set_weights(state.trainee.policy, 0.1)
    early = source.take(2).rollout
    late, _, _ = make_source(1)
    assert late.take(2).rollout.texts == early.texts


def test_sampling_ends_when_nobody_waits_for_it(make_source, monkeypatch):
    source, state, sampling = make_source(1)
    begun, go_on = threading.Event(), threading.Event()
    sample = state.sampler.sample

    def slow(ids, mask, config, steering):
        begun.set()
        assert go_on.wait(TIMEOUT_S)
        return sample(ids, mask, config, steering)

    source.take(1)
    monkeypatch.setattr(state.sampler, "sample", slow)
    source.advance(1)
    assert begun.wait(TIMEOUT_S)
    pending = source._next
    threading.Timer(0.0, go_on.set).start()
    sampling.closing.set()
    with pytest.raises(Exception, match="sampling was given up"):
        pending.result(TIMEOUT_S)
