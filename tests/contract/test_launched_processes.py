"""`accelerate launch`, for real: two processes on CPUs that train on the scores of a real service."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from rl_client.recipes.train_ppo import train_ppo
from rl_client.training.config import TrainConfig, load_config
from tests.rl_client.tiny_models import make_policy, make_tokenizer

ROOT = Path(__file__).parents[2]
SERVICE = Path(__file__).with_name("scripted_service.py")
CONFIGS = ROOT / "deploy" / "configs"
TIMEOUT_S = 240.0


@pytest.fixture(scope="module")
def url():
    """The service in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(SERVICE), str(port)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait(TIMEOUT_S)


@pytest.fixture
def write_settings(tmp_path, url):
    """Settings of a run of two steps, in a file."""
    policy = tmp_path / "start"
    make_policy("t5").save(policy, make_tokenizer("t5"))
    prompts = tmp_path / "prompts.jsonl"
    records = [{"id": f"q{n}", "prompt": "red " * (n + 1), "fields": {"question": f"Q{n}"}} for n in range(4)]
    prompts.write_text("".join(json.dumps(record) + "\n" for record in records))

    def write(name: str) -> Path:
        settings = {
            "output": str(tmp_path / name),
            "threads": 1,
            "device": "cpu",
            "policy": str(policy),
            "prompts": str(prompts),
            "service": {"url": url},
            "rewards": [{"model": "relevance", "shaping": "centered"}, {"model": "length", "weight": -0.01}],
            "generation": {"max_new_tokens": 5, "samples_per_prompt": 2},
            "ppo": {"steps": 2, "prompts_per_step": 3, "epochs": 1, "minibatch_size": 3, "learning_rate": 1e-3},
        }
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(settings))
        return file

    return write


def launch(settings: Path, *options: str, home: Path) -> None:
    """As docs/training.md says, without what is in the user's own accelerate settings."""
    command = ["accelerate.commands.launch", *options, "--num_processes", "2", "--main_process_port", "0"]
    result = subprocess.run(
        [sys.executable, "-m", *command, "-m", "rl_client.cli", "train", "--config", str(settings)],
        env={**os.environ, "HF_HOME": str(home), "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def weights_of(settings: Path, *names: str) -> torch.Tensor:
    """Of the policy in a folder that settings name."""
    folder, *below = names
    weights = load_file(Path(yaml.safe_load(settings.read_text())[folder], *below, "model.safetensors"))
    return torch.cat([tensor.flatten() for _, tensor in sorted(weights.items())])


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="on CPUs alone")
@pytest.mark.parametrize("config", ["accelerate-ddp.yaml", "accelerate-fsdp.yaml"])
def test_two_launched_processes_learn_what_one_does(tmp_path, write_settings, config):
    alone, joint = write_settings("alone"), write_settings("joint")
    train_ppo(load_config(alone, TrainConfig), resume=False)
    launch(joint, "--config_file", str(CONFIGS / config), home=tmp_path)
    learnt, wanted = (weights_of(settings, "output", "policy") for settings in (joint, alone))
    assert (learnt - wanted).abs().max() < 1e-5
    assert not torch.equal(wanted, weights_of(alone, "policy"))
