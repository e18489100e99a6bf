"""Whole runs of PPO and of fine-tuning on a CUDA device: every option trains, and runs resume."""

import math
import os

import pytest
import torch
from safetensors.torch import load_file

from rl_client.recipes.train_sft import train_sft
from rl_client.training.models import load_policy
from tests.rl_client.killed import KilledError
from tests.rl_client.recipes.whole_runs import (
    ADAPTER,
    LEANEST,
    assert_reward_improves,
    assert_same_run,
    policy_weights,
    use_other_chance,
)

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

DEVICE = "cuda"
# Before cuBLAS is first used: without it its sums may differ from one run to the next.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture
def deterministic():
    """The same sums in the same order in every run."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


OPTIONS = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "recomputed": {"gradient_checkpointing": True, "precision": "bf16"},
    "compiled": {"compile": True},
    "compiled_recomputed_bf16": {"compile": True, "gradient_checkpointing": True, "precision": "bf16"},
    "adapter": ADAPTER,
    "shared_trunk": {"value_trunk": "shared"},
    "stale": {"pipeline": {"staleness": 1}, "precision": "bf16"},
    "all": {**LEANEST, "pipeline": {"staleness": 1}},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("network", ["t5", "llama"])
def test_each_option_trains(run, train_config, policy_dir, llama_dir, read_metrics, network, options):
    folder = {"t5": policy_dir, "llama": llama_dir}[network]
    config = train_config(
        "a", device=DEVICE, policy=folder, ppo__steps=4, diagnostics={"exact_kl_tokens": 8}, **options
    )
    assert run(config)
    lines = read_metrics(config.output)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        assert all(math.isfinite(value) for value in line.values() if value is not None), line
    tolerance = 0.05 if "precision" in options else 1e-4
    assert lines[0]["ratio_mean"] == pytest.approx(1.0, abs=tolerance)  # the policy waits for the value model
    assert lines[0]["kl"] == pytest.approx(0.0, abs=tolerance * lines[0]["length_tokens"])
    assert lines[-1]["policy_grad_norm"] > 0
    before, after = load_file(folder / "model.safetensors"), policy_weights(config)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert load_policy(config.output / "policy")


def test_the_reward_improves(run, train_config, read_metrics):
    assert_reward_improves(run, train_config, read_metrics, device=DEVICE)


RESUMED = {
    "t5": {},
    "t5_bf16_stale": {"precision": "bf16", "pipeline": {"staleness": 1}},
    "llama_adapter": {**ADAPTER, "gradient_checkpointing": True},
}


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("name", RESUMED)
def test_a_killed_run_resumes_bit_for_bit_by_deterministic_algorithms(
    run, train_config, policy_dir, llama_dir, kill_after, read_metrics, name
):
    folder = llama_dir if name.startswith("llama") else policy_dir
    unbroken, killed = (
        train_config(output, device=DEVICE, policy=folder, **RESUMED[name]) for output in ("unbroken", "killed")
    )
    run(unbroken)
    kill_after(5)
    with pytest.raises(KilledError):
        run(killed)
    use_other_chance()
    assert run(killed, resume=True)
    assert_same_run(killed, unbroken, read_metrics)


def test_a_run_of_the_cpu_goes_on_on_the_device(run, train_config, kill_after, read_metrics):
    config = train_config("a")
    kill_after(4)
    with pytest.raises(KilledError):
        run(config)
    assert run(train_config("a", device=DEVICE), resume=True)
    lines = read_metrics(config.output)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(value) for value in lines[-1].values() if value is not None)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_killed_fine_tuning_with_dropout_resumes_bit_for_bit(sft_config, read_metrics, kill_after, precision):
    """The device has a random state of its own, which must come back as well."""
    unbroken, killed = (sft_config(name, device=DEVICE, precision=precision) for name in ("unbroken", "killed"))
    train_sft(unbroken, resume=False)
    kill_after(5)
    with pytest.raises(KilledError):
        train_sft(killed, resume=False)
    use_other_chance()
    assert train_sft(killed, resume=True)
    assert_same_run(killed, unbroken, read_metrics)
