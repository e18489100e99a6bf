"""Runs of PPO with everything on that has a state or a figure of its own."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

from rl_client.errors import VersionChangedError
from rl_client.training.checkpoint import list_checkpoints
from rl_client.training.config import TrainConfig
from tests.rl_client.killed import KilledError
from tests.rl_client.recipes.whole_runs import policy_weights, steps_saved


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
