"""Invariant 3: two forwards are identical in training, although the models' configuration has dropout."""

import torch

from rl_client.rollout.generate import generate
from rl_client.training.config import GenerationSettings, TrainConfig
from rl_client.training.ppo_state import build_state


def test_dropout_is_off_in_everything_that_ppo_trains(
    policy_dir, prompts_file, tmp_path, tokenizer, prompts, network_settings
):
    config = TrainConfig.model_validate(
        {
            "output": tmp_path / "run",
            "policy": policy_dir,
            "prompts": prompts_file,
            "service": {"url": "http://reward"},
            "rewards": [{"model": "a"}],
            **network_settings,
            "ppo": {"steps": 1, "prompts_per_step": 2, "minibatch_size": 2},
        }
    )
    state = build_state(config, torch.device("cpu"), {})
    trainee = state.trainee
    assert any(rate for name, rate in trainee.policy.network.config.to_dict().items() if "dropout" in name)
    tokens = generate(trainee.policy, tokenizer, prompts, GenerationSettings(max_new_tokens=5), seed=0).tokens
    torch.nn.init.ones_(trainee.value.head.weight)
    for model in (trainee.policy, trainee.value, state.reference):
        assert torch.equal(model(tokens), model(tokens))
    trainee.policy.train()
    assert not torch.equal(trainee.policy(tokens), trainee.policy(tokens))  # it would differ otherwise
