import pytest
import yaml
from typer.testing import CliRunner

from rl_client import cli
from rl_client.training.config import SftConfig


@pytest.fixture
def invoke():
    return lambda *arguments: CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("command", ["sft", "train", "evaluate"])
def test_a_faulty_file_is_told_in_full_and_exits_1(invoke, tmp_path, command):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"output": "x", "colour": "red", "seed": -1}))
    result = invoke(command, "--config", path)
    assert result.exit_code == 1
    assert "colour: unknown setting" in result.stderr
    assert "seed: " in result.stderr
    assert "Traceback" not in result.output


def test_an_unreachable_service_exits_1(invoke, tmp_path, policy_dir, prompts_file):
    path = tmp_path / "c.yaml"
    settings = {
        "output": str(tmp_path / "run"),
        "policy": str(policy_dir),
        "prompts": str(prompts_file),
        "service": {"url": "http://127.0.0.1:1", "retry_for_s": 0},
        "rewards": [{"model": "a"}],
        "ppo": {"steps": 1, "prompts_per_step": 1, "minibatch_size": 1},
    }
    path.write_text(yaml.safe_dump(settings))
    result = invoke("train", "--config", path)
    assert result.exit_code == 1
    assert "ApiConnectionError" in result.stderr


def test_sft_runs_and_resumes_a_finished_run(invoke, tmp_path, init_dir, demonstrations_file):
    path = tmp_path / "c.yaml"
    settings = {
        "output": str(tmp_path / "run"),
        "model": str(init_dir),
        "from_scratch": True,
        "threads": 1,
        "data": {"train": str(demonstrations_file)},
        "training": {"steps": 2, "batch_size": 4},
    }
    path.write_text(yaml.safe_dump(settings))
    assert invoke("sft", "--config", path).exit_code == 0
    again = invoke("sft", "--config", path)
    assert again.exit_code == 1
    assert "--resume" in again.stderr
    assert invoke("sft", "--config", path, "--resume").exit_code == 0


def test_a_run_told_to_stop_exits_75(invoke, tmp_path, init_dir, demonstrations_file, monkeypatch):
    from rl_client.recipes import train_sft

    monkeypatch.setattr(train_sft, "train_sft", lambda config, resume: False)
    path = tmp_path / "c.yaml"
    settings = {
        "output": "x",
        "model": str(init_dir),
        "data": {"train": str(demonstrations_file)},
        "training": {"steps": 1},
    }
    assert SftConfig.model_validate(settings)
    path.write_text(yaml.safe_dump(settings))
    assert invoke("sft", "--config", path).exit_code == 75
