"""What whole runs leave, and settings that tests of PPO on the CPU and on a CUDA device give them."""

import pytest
import torch
from safetensors.torch import load_file

from rl_client.training.checkpoint import list_checkpoints

ADAPTER = {"lora": {"rank": 2, "alpha": 4}}
LEANEST = {**ADAPTER, "value_trunk": "shared", "gradient_checkpointing": True, "precision": "bf16"}
"""All that saves memory."""


def steps_saved(config) -> list[str]:
    return [path.name for path in list_checkpoints(config.output / "checkpoints")]


def policy_weights(config) -> dict:
    return load_file(config.output / "policy" / "model.safetensors")


def use_other_chance() -> None:
    """As in a new process, which has another global random state."""
    torch.manual_seed(99)


def assert_same_run(found, expected, read_metrics) -> None:
    assert read_metrics(found.output) == read_metrics(expected.output)
    weights = policy_weights(expected)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in policy_weights(found).items())


def assert_reward_improves(run, train_config, read_metrics, **changes) -> None:
    config = train_config(
        "a", ppo__steps=25, ppo__learning_rate=1e-2, ppo__value_warmup_steps=0, generation__samples_per_prompt=8,
        ppo__minibatch_size=32, ppo__microbatch_size=None, ppo__kl_coefficient=0.01, ppo__schedule="constant",
        **changes,
    )  # fmt: skip
    run(config)
    returns = [line["return"] for line in read_metrics(config.output)]
    assert sum(returns[-5:]) / 5 > sum(returns[:5]) / 5 + 0.3


def flat(file) -> torch.Tensor:
    """All weights of a file."""
    return torch.cat([tensor.flatten() for _, tensor in sorted(load_file(file).items())])


def assert_learned_alike(found, expected, read_metrics, tolerance) -> None:
    """Of two runs: metrics, relative, and weights, as a share of their way from the start."""
    for line, wanted in zip(read_metrics(found.output), read_metrics(expected.output), strict=True):
        assert line == pytest.approx(wanted, rel=10 * tolerance, abs=tolerance)
    for model in ("policy", "value"):
        weights, wanted = (flat(config.output / model / "model.safetensors") for config in (found, expected))
        way = (wanted - flat(found.policy / "model.safetensors")).norm()
        assert way > 0
        assert (weights - wanted).norm() < tolerance * way
