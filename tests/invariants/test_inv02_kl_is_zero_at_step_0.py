"""Invariant 2: before anything was learned the policy is the reference, by every estimate; afterwards it is not.

That holds for an adapter too, whose reference is the policy with the adapter off.
"""

import pytest
import torch

from rl_client.rollout.generate import generate
from rl_client.rollout.stages import ScoredRollout
from rl_client.training.config import GenerationSettings, PpoSettings, TrainConfig
from rl_client.training.experience import estimate, make_train_batch
from rl_client.training.ppo_state import build_state

TOLERANCE = 1e-5
NAMES = ("kl", "kl_k3", "kl_exact", "component/kl")


@pytest.fixture
def state(policy_dir, prompts_file, tmp_path, network_settings):
    """As a run begins, with the reference that it makes itself."""
    config = TrainConfig.model_validate(
        {
            "output": tmp_path / "run",
            "policy": policy_dir,
            "prompts": prompts_file,
            "service": {"url": "http://reward"},
            "rewards": [{"model": "a"}],
            **network_settings,
            "kl": {"estimator": "k2"},
            "ppo": {"steps": 1, "prompts_per_step": 4, "minibatch_size": 4},
        }
    )
    return build_state(config, torch.device("cpu"), {})


def figures(state, tokenizer, prompts, temperature: float) -> dict[str, float]:
    settings = GenerationSettings(max_new_tokens=7, samples_per_prompt=2, temperature=temperature)
    rollout = generate(state.trainee.policy, tokenizer, prompts, settings, seed=0)
    tokens = rollout.tokens
    found = estimate(
        state.trainee.policy, state.reference, state.trainee.value, tokens,
        temperature=temperature, microbatch_size=3, exact_kl_tokens=1000,
    )  # fmt: skip
    scored = ScoredRollout(rollout, 1.0 * tokens.response_mask, torch.zeros(8, dtype=torch.bool), {}, {})
    ppo = PpoSettings(steps=1, prompts_per_step=4, minibatch_size=8)
    _, metrics = make_train_batch(scored, tokens, found, ppo, state.kl_control)
    return {name: metrics[name] for name in NAMES}


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_kl_is_zero_at_step_0_and_not_once_the_policy_has_moved(state, tokenizer, prompts, temperature):
    before = figures(state, tokenizer, prompts, temperature)
    assert before == pytest.approx(dict.fromkeys(NAMES, 0.0), abs=TOLERANCE)
    with torch.no_grad():
        for weight in state.trainee.policy.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    after = figures(state, tokenizer, prompts, temperature)
    for name in ("kl_k3", "kl_exact", "component/kl"):
        assert after[name] > 1e-3, name
