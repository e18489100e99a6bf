import json
import re
import signal
import sys
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
    DataError,
    KlLimitError,
    RunFolderError,
    TooManyFailedScoresError,
    VersionChangedError,
)
from rl_client.recipes.train_ppo import train_ppo
from rl_client.training.checkpoint import list_checkpoints
from rl_client.training.config import TrainConfig
from rl_client.training.metric_log import MetricLog
from rl_client.training.models import load_value
from tests.rl_client.killed import KilledError


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


@pytest.mark.parametrize(
    "changes",
    [
        {"lora": {"rank": 2, "alpha": 4}},
        pytest.param(
            {
                "lora": {"rank": 2, "alpha": 4},
                "value_trunk": "shared",
                "gradient_checkpointing": True,
                "precision": "bf16",
            },
            marks=pytest.mark.slow,
        ),
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
    torch.manual_seed(99)
    assert run(killed, resume=True)
    assert read_metrics(killed.output) == read_metrics(unbroken.output)
    expected = policy_weights(unbroken)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in policy_weights(killed).items())
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


def test_a_start_that_fails_on_its_data_leaves_its_folder_free(run, train_config, tmp_path):
    (tmp_path / "faulty.jsonl").write_text("no JSON")
    for _ in range(2):
        with pytest.raises(DataError, match=r"faulty\.jsonl, line 1"):
            run(train_config("faulty", prompts=tmp_path / "faulty.jsonl"))


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


@pytest.fixture
def everything(train_config, tmp_path, monkeypatch):
    """Settings that switch on whatever has a state or a figure of its own."""
    text = "async def brevity(samples):\n    return [-0.1 * sample.length_tokens for sample in samples]\n"
    (tmp_path / "functions_for_recipe.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "functions_for_recipe", raising=False)

    def make(output: str, **changes):
        return train_config(
            output,
            rewards=[
                {"model": "good", "shaping": "sign", "normalization": "scale"},
                {"model": "short", "weight": 0.5, "normalization": "zscore"},
                {"function": "functions_for_recipe:brevity"},
            ],
            penalties={"length": 0.01, "free_tokens": 2, "truncation": 0.1},
            kl={"estimator": "k3", "target": 0.5},
            checkpoint={"every_steps": 2, "keep": 1, "best_metric": "reward_per_segment"},
            diagnostics={"samples_every_steps": 3},
            **changes,
        )

    return make


def test_statistics_kl_control_and_the_best_checkpoint_resume_bit_for_bit(run, everything, kill_after, read_metrics):
    unbroken = everything("unbroken")
    run(unbroken)
    lines = read_metrics(unbroken.output)
    assert len({line["kl_coefficient"] for line in lines}) > 1
    killed = everything("killed")
    kill_after(5)
    with pytest.raises(KilledError):
        run(killed)
    assert run(killed, resume=True)
    assert read_metrics(killed.output) == lines
    newest = [list_checkpoints(config.output / "checkpoints")[-1] for config in (unbroken, killed)]
    states = [json.loads((path / "state.json").read_text())["state"] for path in newest]
    for state in states:
        # Of Python's own generator, which no run draws from, but any thread that another test left in this process may.
        del state["random"]
    assert states[0] == states[1]
    assert set(states[0]["reward_statistics"]) == {"good", "short"}
    for name in ("policy", "policy_best"):
        weights = [load_file(config.output / name / "model.safetensors") for config in (unbroken, killed)]
        assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items())


def test_the_best_checkpoint_is_kept_as_a_plain_policy(run, everything, read_metrics):
    config = everything("a")
    run(config)
    values = [line["reward_per_segment"] for line in read_metrics(config.output)]
    means = {step: (values[step - 2] + values[step - 1]) / 2 for step in (2, 4, 6)}
    best = max(means, key=means.get)
    told = json.loads((config.output / "checkpoints" / "best.json").read_text())
    assert (told["step"], told["value"]) == (best, pytest.approx(means[best]))
    assert steps_saved(config) == sorted({f"step-{best:08d}", "step-00000006"})
    saved = load_file(config.output / "checkpoints" / f"step-{best:08d}" / "policy.safetensors")
    network = AutoModelForSeq2SeqLM.from_pretrained(config.output / "policy_best")
    assert torch.equal(network.shared.weight, saved["network.shared.weight"])
    newest = load_file(config.output / "checkpoints" / "step-00000006" / "policy.safetensors")
    assert torch.equal(policy_weights(config)["shared.weight"], newest["network.shared.weight"])
    assert [path.name for path in sorted((config.output / "samples").iterdir())] == [
        "step-00000003.html",
        "step-00000006.html",
    ]


def test_functions_alone_train_without_a_service(run, everything, service, read_metrics):
    settings = everything("a", ppo__steps=2).model_dump() | {"service": None, "checkpoint": {}}
    config = TrainConfig.model_validate(settings | {"rewards": [settings["rewards"][2] | {"model": None}]})
    assert run(config)
    assert not service.requests
    assert read_metrics(config.output)[0]["reward/brevity"] < 0


def test_a_function_that_changed_does_not_resume(run, everything, tmp_path):
    run(everything("a", ppo__steps=2))
    (tmp_path / "functions_for_recipe.py").write_text("def brevity(samples):\n    return [0.0 for _ in samples]\n")
    with pytest.raises(VersionChangedError, match="brevity: pinned"):
        run(everything("a", ppo__steps=4), resume=True)


def test_metrics_and_their_documentation_are_the_same_list(run, everything, read_metrics):
    docs = (Path(__file__).parents[3] / "docs" / "training.md").read_text(encoding="utf-8")
    section = docs[docs.index("## What the metrics mean") :]
    documented = re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE)
    config = everything("a", ppo__steps=2)
    run(config)
    names = json.loads((config.output / "metrics.jsonl").read_text().splitlines()[-1])
    written = {
        name if name == "component/kl" or "/" not in name else f"{name.partition('/')[0]}/<source>" for name in names
    }
    assert sorted(documented) == sorted(written)


def test_the_service_is_told_the_run_and_each_step(train_config, service):
    told = []

    def answer(request):
        if request.url.path == "/v1/score":
            headers = dict(request.headers.raw)
            told.append((headers[b"X-Client-Run"].decode(), int(headers[b"X-Client-Step"])))
        return service.transport.handle_request(request)

    config = train_config("told", ppo__steps=3)
    train_ppo(config, resume=False, transport=httpx.MockTransport(answer))
    assert {run for run, _ in told} == {str(config.output)[-256:]}
    assert sorted({step for _, step in told}) == list(range(1, config.ppo.steps + 1))
