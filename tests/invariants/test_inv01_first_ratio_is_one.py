"""Invariant 1: the ratio is 1 on the first mini-batch, for any chunking. And 2: KL to the reference is 0 at step 0."""

import pytest
import torch

from rl_client.rollout.generate import generate
from rl_client.rollout.stages import ScoredRollout
from rl_client.training.config import GenerationSettings, PpoSettings
from rl_client.training.experience import estimate, make_train_batch
from rl_client.training.optim import make_adamw
from rl_client.training.ppo_step import Trainee, ppo_update
from rl_client.training.reference import make_reference

TOLERANCE = 1e-5


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("top_k", [0, 4])
@pytest.mark.parametrize(("read_by", "minibatch", "microbatch"), [(8, 8, 8), (3, 8, 2), (5, 3, 1)])
def test_ratio_and_kl_before_anything_was_learned(
    policy, value, tokenizer, prompts, temperature, top_k, read_by, minibatch, microbatch
):
    settings = GenerationSettings(max_new_tokens=7, samples_per_prompt=2, temperature=temperature, top_k=top_k)
    ppo = PpoSettings(
        steps=1, prompts_per_step=4, epochs=1, minibatch_size=minibatch, microbatch_size=microbatch, learning_rate=1e-12
    )  # the rate is so low that every mini-batch is a first one
    rollout = generate(policy, tokenizer, prompts, settings, seed=0)
    found = estimate(
        policy, make_reference(policy), value, rollout.tokens, temperature=temperature, microbatch_size=read_by
    )
    rewards = torch.randn(rollout.tokens.response_mask.shape, generator=torch.Generator().manual_seed(0))
    scored = ScoredRollout(rollout, rewards * rollout.tokens.response_mask, torch.zeros(8, dtype=torch.bool), {}, {})
    batch, metrics = make_train_batch(scored, rollout.tokens, found, ppo)
    assert metrics["kl"] == pytest.approx(0.0, abs=TOLERANCE)
    assert metrics["kl_k3"] == pytest.approx(0.0, abs=TOLERANCE)
    optimizers = (make_adamw(model, learning_rate=1e-12, weight_decay=0.0, eps=1e-5) for model in (policy, value))
    updated = ppo_update(Trainee(policy, value, *optimizers), batch, ppo, temperature=temperature, seed=0)
    assert updated["ratio_max"] == pytest.approx(1.0, abs=TOLERANCE)
    assert updated["clip_fraction"] == 0.0
    assert updated["approx_kl"] == pytest.approx(0.0, abs=TOLERANCE)
