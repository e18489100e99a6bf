"""Invariant 19: a known segment reward improves on CPU within seconds. And 18: the reference never changes."""

import json

import torch

from reward_proto import Granularity, ModelKind
from rl_client.api.testing import FakeModel, FakeRewardService
from rl_client.recipes import train_ppo as recipe
from rl_client.rollout.generate import generate
from rl_client.training.config import GenerationSettings, TrainConfig
from rl_client.training.models import load_policy

STEPS = 30
# One of eight seeds that were tried with the whole networks and five with the adapter: all ended over 0.91 of good
# segments. At twice the rate some runs that had reached 1 fell back, and a round-off more or less decided which.
SEED, RATE = 1, 5e-3


def test_the_share_of_good_segments_rises(
    policy_dir, prompts_file, tmp_path, monkeypatch, network_settings, tokenizer, prompts
):
    """The reward is for each sub-sentence: +1 if it holds the word `good`, -1 if not; a random policy gets about -1."""
    states = []
    build_state = recipe.build_state
    monkeypatch.setattr(recipe, "build_state", lambda *args: states.append(build_state(*args)) or states[-1])
    service = FakeRewardService(
        [
            FakeModel(
                "good",
                score=lambda text: 1.0 if "good" in text.split() else 0.0,
                granularity=Granularity.SUB_SENTENCE,
                kind=ModelKind.TOKEN_CLASSIFICATION,
            )
        ]
    )
    config = TrainConfig.model_validate(
        {
            "output": tmp_path / "run",
            "seed": SEED,
            "threads": 1,
            "device": "cpu",
            "policy": policy_dir,
            **network_settings,
            "prompts": prompts_file,
            "service": {"url": "http://reward"},
            "rewards": [{"model": "good", "shaping": "sign"}],
            "generation": {"max_new_tokens": 6, "samples_per_prompt": 8},
            "ppo": {
                "steps": STEPS,
                "prompts_per_step": 8,
                "minibatch_size": 32,
                "epochs": 2,
                "learning_rate": RATE,
                "value_learning_rate": 1e-2,
                "kl_coefficient": 0.02,
            },
        }
    )
    recipe.train_ppo(config, resume=False, transport=service.transport)
    lines = [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]
    shares = [line["reward/good"] for line in lines]
    assert sum(shares[:3]) / 3 < 0.5
    assert sum(shares[-3:]) / 3 > 0.9
    variances = [line["explained_variance"] for line in lines]
    if "lora" in network_settings:
        assert max(variances) > variances[0] + 0.1  # the adapters' returns end up alike, with nothing left to explain
    else:
        assert sum(variances[-5:]) / 5 > variances[0] + 0.3  # 0.7 and 0.9 here; over 0.36 for all of the seeds but one

    (state,) = states
    start = load_policy(policy_dir).requires_grad_(False)
    tokens = generate(start, tokenizer, prompts, GenerationSettings(max_new_tokens=6), seed=0).tokens
    with torch.no_grad():
        assert torch.equal(state.reference.requires_grad_(False)(tokens), start(tokens))
        assert not torch.allclose(state.trainee.policy(tokens), start(tokens), atol=0.1)
