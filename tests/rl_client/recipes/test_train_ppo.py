import json
import re
import signal
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

from reward_proto import ErrorCode
from rl_client.api import ApiConnectionError
from rl_client.api.testing import FakeModel
from rl_client.errors import (
    CheckpointError,
    KlLimitError,
    RunFolderError,
    TooManyFailedScoresError,
    VersionChangedError,
)
from rl_client.recipes.train_ppo import train_ppo
from rl_client.training.checkpoint import list_checkpoints
from rl_client.training.metric_log import MetricLog


class KilledError(Exception):
    """Stands for a kill -9: nothing of the run's own code may handle it."""


@pytest.fixture
def run(service):
    def run(config, *, resume: bool = False) -> bool:
        return train_ppo(config, resume=resume, transport=service.transport)

    return run


@pytest.fixture
def kill_after(monkeypatch):
    """Ends the run just after a step's metrics are written."""

    def kill(step: int) -> None:
        write = MetricLog.write

        def write_and_die(log, at, metrics):
            write(log, at, metrics)
            if at == step:
                monkeypatch.setattr(MetricLog, "write", write)
                raise KilledError

        monkeypatch.setattr(MetricLog, "write", write_and_die)

    return kill


def steps_saved(config) -> list[str]:
    return [path.name for path in list_checkpoints(config.output / "checkpoints")]


def policy_weights(config) -> dict:
    return load_file(config.output / "policy" / "model.safetensors")


def test_a_run_leaves_metrics_checkpoints_and_a_plain_policy(run, train_config, read_metrics):
    config = train_config("a")
    assert run(config)
    lines = read_metrics(config.output)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for name in ("reward/good", "reward_shaped/short", "return", "kl", "kl_k3", "clip_fraction", "value_clip_fraction"):
        assert name in lines[-1]
    for name in ("entropy", "explained_variance", "policy_loss", "value_loss", "length_tokens", "share_cut_off"):
        assert name in lines[-1]
    assert steps_saved(config) == ["step-00000004", "step-00000006"]
    network = AutoModelForSeq2SeqLM.from_pretrained(config.output / "policy")
    assert not torch.equal(network.shared.weight, AutoModelForSeq2SeqLM.from_pretrained(config.policy).shared.weight)
    assert list((config.output / "tensorboard").iterdir())


def test_the_reward_improves(run, train_config, read_metrics):
    config = train_config(
        "a", ppo__steps=25, ppo__learning_rate=1e-2, ppo__value_warmup_steps=0, generation__samples_per_prompt=8,
        ppo__minibatch_size=32, ppo__microbatch_size=None, ppo__kl_coefficient=0.01, ppo__schedule="constant",
    )  # fmt: skip
    run(config)
    returns = [line["return"] for line in read_metrics(config.output)]
    assert sum(returns[-5:]) / 5 > sum(returns[:5]) / 5 + 0.3


def test_a_killed_run_resumes_bit_for_bit(run, train_config, kill_after, read_metrics):
    unbroken = train_config("unbroken")
    run(unbroken)
    killed = train_config("killed")
    kill_after(5)
    with pytest.raises(KilledError):
        run(killed)
    assert len(read_metrics(killed.output)) == 5
    torch.manual_seed(99)  # a new process has another global random state
    assert run(killed, resume=True)
    assert read_metrics(killed.output) == read_metrics(unbroken.output)
    expected = policy_weights(unbroken)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in policy_weights(killed).items())


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


def test_failed_scores_are_counted_and_too_many_stop(run, train_config, service, read_metrics):
    config = train_config("a", service={"url": "http://reward", "retry_for_s": 0.0, "max_failed_share": 0.25})
    service.fail_scores("short", ErrorCode.TOO_LONG, times=2)
    assert run(config)
    assert [line["failed_scores"] for line in read_metrics(config.output)] == [2, 0, 0, 0, 0, 0]
    service.fail_scores("short", ErrorCode.TOO_LONG, times=3)
    with pytest.raises(TooManyFailedScoresError, match="3 of 8"):
        run(train_config("b", service={"url": "http://reward", "retry_for_s": 0.0, "max_failed_share": 0.25}))


def test_a_policy_that_strays_too_far_stops(run, train_config):
    config = train_config("a", ppo__max_kl=1e-9, ppo__max_kl_times=2, ppo__learning_rate=1e-2)
    with pytest.raises(KlLimitError, match="for the 2th time"):
        run(config)
    assert steps_saved(config)


def test_bf16_runs(run, train_config):
    assert run(train_config("a", precision="bf16", ppo__steps=2))


def test_every_metric_is_documented(run, train_config, read_metrics):
    documented = (Path(__file__).parents[3] / "docs" / "training.md").read_text(encoding="utf-8")
    config = train_config("a", ppo__steps=2)
    run(config)
    names = json.loads((config.output / "metrics.jsonl").read_text().splitlines()[-1])
    shown = {re.sub("/.*", "/<model>", name) for name in names}
    assert not [name for name in shown if f"| `{name}` |" not in documented]
