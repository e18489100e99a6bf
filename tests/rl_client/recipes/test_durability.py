"""Full disks, damaged checkpoints, a second process in the folder: a run stops with a reason, or goes on."""

import json
from contextlib import ExitStack

import pytest
import torch
from safetensors.torch import load_file

from rl_client.errors import CheckpointError, OutputError, RunFolderError
from rl_client.recipes.train_sft import train_sft
from rl_client.training.checkpoint import checkpoint_path, list_checkpoints
from rl_client.training.run_folder import RunFolder
from tests.rl_client.small_disk import no_file_larger_than


class KilledError(BaseException):
    """Stands for a kill -9."""


def assert_same_run(found, expected, read_metrics) -> None:
    assert read_metrics(found.output) == read_metrics(expected.output)
    for name in ("policy", "value"):
        weights, wanted = (load_file(config.output / name / "model.safetensors") for config in (found, expected))
        assert all(torch.equal(tensor, wanted[key]) for key, tensor in weights.items())


def steps_saved(config) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in list_checkpoints(config.output / "checkpoints")]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own thread
def test_a_disk_that_fills_up_stops_the_run_where_it_can_go_on(run, train_config, at_step, read_metrics):
    unbroken, config = (train_config(name, ppo__steps=4) for name in ("unbroken", "a"))
    run(unbroken)
    with ExitStack() as disk:
        at_step(3, lambda: disk.enter_context(no_file_larger_than(4096)))
        with pytest.raises(OutputError, match="could not be written"):
            run(config)
    assert steps_saved(config) == [2]
    assert not list((config.output / "checkpoints").glob(".unfinished-*"))
    assert run(config, resume=True)
    assert_same_run(config, unbroken, read_metrics)


def test_a_damaged_newest_checkpoint_costs_the_steps_since_the_one_before(
    run, train_config, at_step, read_metrics, caplog
):
    best = {"every_steps": 2, "keep": 2, "best_metric": "reward_per_segment"}
    unbroken, config = (train_config(name, checkpoint=best, ppo__steps=5) for name in ("unbroken", "a"))
    run(unbroken)

    def die():
        raise KilledError

    at_step(5, die)
    with pytest.raises(KilledError):
        run(config)
    # Someone removed half of it. Without its moments the optimizer would begin anew, and nothing else would show it.
    (checkpoint_path(config.output / "checkpoints", 4) / "policy_optimizer.safetensors").unlink()
    assert run(config, resume=True)
    assert "step-00000004 cannot be read" in caplog.text
    assert_same_run(config, unbroken, read_metrics)
    assert (config.output / "checkpoints" / "damaged-step-00000004").is_dir()
    told = [json.loads((c.output / "checkpoints" / "best.json").read_text()) for c in (config, unbroken)]
    assert told[0] == told[1]


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_over(run, train_config, read_metrics):
    config = train_config("a", ppo__steps=2)
    run(config)
    lines = read_metrics(config.output)
    (checkpoint_path(config.output / "checkpoints", 2) / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="step-00000002 cannot be read"):
        run(config, resume=True)
    assert read_metrics(config.output) == lines


def test_a_second_process_is_refused_and_changes_nothing(run, train_config, at_step, read_metrics):
    unbroken, config = (train_config(name, ppo__steps=3) for name in ("unbroken", "a"))
    run(unbroken)
    refused = []

    def start_another():
        for resume in (True, False):
            with pytest.raises(RunFolderError, match="another process is writing") as error:
                run(config, resume=resume)
            refused.append(error)

    at_step(2, start_another)
    assert run(config)
    assert len(refused) == 2
    assert_same_run(config, unbroken, read_metrics)


def test_a_prolonged_run_that_is_killed_before_its_policy_is_there_is_not_finished(
    run, train_config, read_metrics, monkeypatch
):
    plain = {"ppo__schedule": "constant", "ppo__warmup_ratio": 0.0}
    unbroken = train_config("unbroken", ppo__steps=2, **plain)
    run(unbroken)
    run(train_config("a", ppo__steps=1, **plain))
    longer = train_config("a", ppo__steps=2, **plain)

    def die(*_):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "leave", die)
        with pytest.raises(KilledError):
            run(longer, resume=True)
    assert steps_saved(longer) == [1, 2]
    assert run(longer, resume=True)
    assert_same_run(longer, unbroken, read_metrics)


def test_fine_tuning_too_outlives_a_full_disk_and_refuses_a_second_process(sft_config, at_step, read_metrics):
    unbroken, config = (sft_config(name) for name in ("unbroken", "a"))
    train_sft(unbroken, resume=False)

    def start_another():
        with pytest.raises(RunFolderError, match="another process is writing"):
            train_sft(config, resume=True)
        disk.enter_context(no_file_larger_than(4096))

    at_step(3, start_another)
    with ExitStack() as disk, pytest.raises(OutputError, match="could not be written"):
        train_sft(config, resume=False)
    assert train_sft(config, resume=True)
    assert read_metrics(config.output) == read_metrics(unbroken.output)
    weights, wanted = (load_file(c.output / "policy" / "model.safetensors") for c in (config, unbroken))
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in weights.items())
