import signal

import pytest
import torch
from safetensors.torch import load_file

from rl_client.errors import CheckpointError, RunFolderError
from rl_client.recipes.train_sft import train_sft
from rl_client.training.checkpoint import list_checkpoints
from rl_client.training.model_files import load_tokenizer
from rl_client.training.models import load_policy


def die() -> None:
    raise MemoryError("killed")


def test_a_run_learns_and_leaves_a_plain_policy(sft_config, read_metrics):
    config = sft_config("a", training__steps=60, training__eval_every_steps=20)
    assert train_sft(config, resume=False)
    lines = read_metrics(config.output)
    assert [line["step"] for line in lines if "dev_loss" in line] == [20, 40, 60]
    assert lines[-1]["dev_loss"] < lines[19]["dev_loss"] < lines[0]["loss"]
    assert load_policy(config.output / "policy")
    assert load_tokenizer(config.output / "policy").eos_token == "</s>"


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_killed_run_resumes_bit_for_bit(sft_config, read_metrics, at_step, step):
    """Dropout is on, so torch's random state must come back as well."""
    unbroken, killed = sft_config("unbroken"), sft_config("killed")
    train_sft(unbroken, resume=False)
    at_step(step, die)
    with pytest.raises(MemoryError):
        train_sft(killed, resume=False)
    torch.manual_seed(99)
    assert train_sft(killed, resume=True)
    assert read_metrics(killed.output) == read_metrics(unbroken.output)
    found, expected = (load_file(c.output / "policy" / "model.safetensors") for c in (killed, unbroken))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@pytest.mark.parametrize("lora", [None, {"rank": 4, "dropout": 0.1}], ids=["whole", "adapter"])
def test_a_decoder_learns_and_a_killed_run_resumes_bit_for_bit(sft_config, read_metrics, at_step, llama_dir, lora):
    changes = {"model": llama_dir, "from_scratch": False, "lora": lora, "training__steps": 20}
    unbroken, killed = (sft_config(name, **changes) for name in ("unbroken", "killed"))
    train_sft(unbroken, resume=False)
    at_step(5, die)
    with pytest.raises(MemoryError):
        train_sft(killed, resume=False)
    torch.manual_seed(99)
    assert train_sft(killed, resume=True)
    lines = read_metrics(killed.output)
    assert lines == read_metrics(unbroken.output)
    assert lines[-1]["dev_loss"] < lines[0]["loss"] - 0.1
    found, expected = (load_file(c.output / "policy" / "model.safetensors") for c in (killed, unbroken))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    assert load_policy(killed.output / "policy")


@pytest.mark.signals
def test_a_signal_ends_the_run_after_a_checkpoint(sft_config, at_step, send_signal):
    config = sft_config("a")
    at_step(3, lambda: send_signal(signal.SIGTERM))
    assert not train_sft(config, resume=False)
    assert [path.name for path in list_checkpoints(config.output / "checkpoints")] == ["step-00000002", "step-00000003"]
    assert train_sft(config, resume=True)


def test_another_run_is_not_overwritten_and_other_data_do_not_resume(sft_config, write_jsonl):
    train_sft(sft_config("a"), resume=False)
    with pytest.raises(RunFolderError):
        train_sft(sft_config("a"), resume=False)
    other = write_jsonl("other.jsonl", [{"id": "x", "prompt": "red", "response": "blue"}])
    with pytest.raises(CheckpointError, match="other settings"):
        train_sft(sft_config("a", data={"train": other}), resume=True)


def test_fine_tuning_can_start_from_weights(sft_config, policy_dir, read_metrics):
    config = sft_config("a", model=policy_dir, from_scratch=False, training__steps=1, data__dev=None)
    assert train_sft(config, resume=False)
    assert "dev_loss" not in read_metrics(config.output)[0]
