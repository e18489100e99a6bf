"""Runs of PPO that were killed, signalled, cut off or finished: what a resume goes on with, or refuses."""

import signal

import httpx
import pytest
import torch
from safetensors.torch import load_file

from reward_proto import ErrorCode
from rl_client.api import ApiConnectionError
from rl_client.api.testing import FakeModel
from rl_client.errors import CheckpointError, RunFolderError, VersionChangedError
from rl_client.training.metric_log import MetricLog
from rl_client.training.models import load_value
from tests.rl_client.killed import KilledError
from tests.rl_client.recipes.whole_runs import (
    ADAPTER,
    LEANEST,
    assert_same_run,
    policy_weights,
    steps_saved,
    use_other_chance,
)


def test_a_killed_run_resumes_bit_for_bit(run, train_config, kill_after, read_metrics):
    unbroken = train_config("unbroken")
    run(unbroken)
    killed = train_config("killed")
    kill_after(5)
    with pytest.raises(KilledError):
        run(killed)
    assert len(read_metrics(killed.output)) == 5
    use_other_chance()
    assert run(killed, resume=True)
    assert_same_run(killed, unbroken, read_metrics)


@pytest.mark.parametrize(
    "changes",
    [
        ADAPTER,
        pytest.param(LEANEST, marks=pytest.mark.slow),
    ],
    ids=["adapter", "adapter_shared_trunk_bf16"],
)
def test_a_killed_run_of_a_decoder_with_an_adapter_resumes_bit_for_bit(
    run, train_config, llama_dir, kill_after, read_metrics, changes
):
    unbroken, killed = (train_config(name, policy=llama_dir, **changes) for name in ("unbroken", "killed"))
    run(unbroken)
    kill_after(5)
    with pytest.raises(KilledError):
        run(killed)
    saved = load_file(killed.output / "checkpoints" / "step-00000004" / "policy.safetensors")
    assert all("lora_" in name or "rotary" in name for name in saved)  # the frozen weights are the directory's
    use_other_chance()
    assert run(killed, resume=True)
    assert_same_run(killed, unbroken, read_metrics)
    expected = policy_weights(unbroken)
    assert not any("lora_" in name for name in expected)
    start = load_file(llama_dir / "model.safetensors")
    assert start.keys() == expected.keys()
    changed = {name for name in start if not torch.equal(start[name], expected[name])}
    assert changed
    assert all("_proj" in name for name in changed)
    assert (killed.output / "policy" / "adapter" / "adapter_model.safetensors").exists()
    assert load_value(killed.output / "value").head.weight.abs().sum() > 0


def test_a_run_killed_before_its_first_checkpoint_starts_over(run, train_config, kill_after, read_metrics):
    unbroken = train_config("unbroken")
    run(unbroken)
    killed = train_config("killed")
    kill_after(1)
    with pytest.raises(KilledError):
        run(killed)
    assert run(killed, resume=True)
    assert read_metrics(killed.output) == read_metrics(unbroken.output)


@pytest.mark.signals
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_a_checkpoint(run, train_config, monkeypatch, read_metrics, send_signal, number):
    config = train_config("a")
    write = MetricLog.write

    def write_and_signal(log, step, metrics):
        write(log, step, metrics)
        if step == 3:
            send_signal(number)

    monkeypatch.setattr(MetricLog, "write", write_and_signal)
    assert not run(config)
    assert steps_saved(config) == ["step-00000002", "step-00000003"]
    assert not (config.output / "policy").exists()
    monkeypatch.setattr(MetricLog, "write", write)
    assert run(config, resume=True)
    unbroken = train_config("unbroken")
    run(unbroken)
    assert read_metrics(config.output) == read_metrics(unbroken.output)


def test_a_finished_run_is_neither_overwritten_nor_run_again(run, train_config, service):
    config = train_config("a", ppo__steps=2)
    run(config)
    with pytest.raises(RunFolderError, match="--resume"):
        run(config)
    requests = len(service.requests)
    assert run(config, resume=True)
    assert len(service.requests) == requests


def test_a_finished_run_can_be_prolonged(run, train_config, read_metrics):
    config = train_config("a", ppo__steps=2, ppo__schedule="constant", ppo__warmup_ratio=0.0)
    run(config)
    longer = train_config("a", ppo__steps=4, ppo__schedule="constant", ppo__warmup_ratio=0.0)
    assert run(longer, resume=True)
    assert [line["step"] for line in read_metrics(config.output)] == [1, 2, 3, 4]


def test_other_settings_do_not_resume(run, train_config):
    run(train_config("a", ppo__steps=2))
    with pytest.raises(CheckpointError, match="other settings"):
        run(train_config("a", ppo__steps=4, ppo__gamma=0.9), resume=True)


def test_other_reward_models_do_not_resume(run, train_config, service):
    run(train_config("a", ppo__steps=2))
    service.models["short"] = FakeModel("short", score=len, version="111111111111")
    with pytest.raises(VersionChangedError, match=r"short: pinned 000000000000 .*served 111111111111"):
        run(train_config("a", ppo__steps=4), resume=True)


def test_a_service_that_stays_away_stops_the_run_at_a_checkpoint(run, train_config, service, read_metrics, monkeypatch):
    unbroken = train_config("unbroken")
    run(unbroken)
    config = train_config("a")
    write = MetricLog.write

    def write_and_break(log, step, metrics):
        write(log, step, metrics)
        if step == 3:
            service.fail_next(httpx.ConnectError("gone"))

    monkeypatch.setattr(MetricLog, "write", write_and_break)
    with pytest.raises(ApiConnectionError, match="gone"):
        run(config)
    assert steps_saved(config) == ["step-00000002", "step-00000003"]
    monkeypatch.setattr(MetricLog, "write", write)
    assert run(config, resume=True)
    assert read_metrics(config.output) == read_metrics(unbroken.output)


def test_a_service_that_comes_back_is_waited_for(run, train_config, service, read_metrics):
    unbroken, config = (
        train_config("unbroken"),
        train_config("a", service={"url": "http://reward", "retry_for_s": 60.0}),
    )
    run(unbroken)
    service.fail_next(httpx.ConnectError("restarting"), ErrorCode.DRAINING)
    assert run(config)
    assert read_metrics(config.output) == read_metrics(unbroken.output)
