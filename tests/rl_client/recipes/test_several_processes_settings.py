"""Two processes on loopback with the settings that change models, precision and pipelining: as one process learns."""

import pytest

from rl_client.recipes.train_ppo import train_ppo
from tests.rl_client.recipes.whole_runs import assert_learned_alike

LORA = {"rank": 4, "alpha": 8}
FP32 = 1e-4
"""How far metrics may be from a single process's, relative, and weights as a share of their way from the start: sums in
another order."""
BF16 = 0.1
"""The same where forwards keep 8 bits: Adam's first steps go by the sign of a gradient, however small it is."""

SETTINGS = {
    "a stale decoder with an adapter": (FP32, {"lora": LORA, "pipeline": {"staleness": 1, "send_share": 1.0}}),
    "a decoder with a shared trunk": (
        FP32,
        {"value_trunk": "shared", "gradient_checkpointing": True, "ppo__microbatch_tokens": 40},
    ),
    "an adapter under a shared trunk": (FP32, {"lora": LORA, "value_trunk": "shared", "kl": {"estimator": "k3"}}),
    "bf16, stale": (BF16, {"precision": "bf16", "pipeline": {"staleness": 1, "send_share": 1.0}}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_learn_what_one_does(nursery, make_joint, read_metrics, policy_dir, llama_dir, name):
    tolerance, changes = SETTINGS[name]
    changes = {"policy": llama_dir if "decoder" in name else policy_dir, **changes}
    single, _ = make_joint("single", **changes)
    train_ppo(single, resume=False)
    config, file = make_joint("two", **changes)
    nursery.start("train", "--config", file)
    assert nursery.statuses() == [0, 0], nursery.log.read_text()
    assert_learned_alike(config, single, read_metrics, tolerance)
