import json

import pytest
import torch

from rl_client.errors import CheckpointError
from rl_client.training import checkpoint as module
from rl_client.training.best_checkpoint import BestCheckpoint
from rl_client.training.checkpoint import (
    Checkpoint,
    CheckpointWriter,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from rl_client.training.settings_checkpoint import CheckpointSettings


def checkpoint(step: int) -> Checkpoint:
    tensors = {"weights": {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(step)}, "empty": {}}
    return Checkpoint(step, tensors, {"name": "é", "rate": 0.1 + 0.2})


def names(folder):
    return [path.name for path in list_checkpoints(folder)]


def test_what_is_saved_comes_back_exactly(tmp_path):
    loaded = load_checkpoint(save_checkpoint(tmp_path, checkpoint(7), keep=2))
    assert loaded.step == 7
    assert torch.equal(loaded.tensors["weights"]["a"], torch.arange(6.0).reshape(2, 3).T)
    assert loaded.tensors["empty"] == {}
    assert loaded.state == {"name": "é", "rate": 0.1 + 0.2}


def test_the_newest_stay(tmp_path):
    for step in (1, 2, 10, 100_000_000):
        save_checkpoint(tmp_path, checkpoint(step), keep=2)
    assert names(tmp_path) == ["step-00000010", "step-100000000"]


def test_a_crash_while_writing_leaves_the_earlier_ones(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, checkpoint(1), keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json", lambda path, value: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            save_checkpoint(tmp_path, checkpoint(2), keep=1)
    assert names(tmp_path) == ["step-00000001"]
    assert load_checkpoint(list_checkpoints(tmp_path)[-1]).step == 1
    save_checkpoint(tmp_path, checkpoint(3), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000003"]


@pytest.mark.parametrize("damage", ["truncate", "no_state", "format"])
def test_a_damaged_checkpoint_is_an_error(tmp_path, damage):
    path = save_checkpoint(tmp_path, checkpoint(1), keep=1)
    if damage == "truncate":
        (path / "weights.safetensors").write_bytes((path / "weights.safetensors").read_bytes()[:-4])
    elif damage == "no_state":
        (path / "state.json").unlink()
    else:
        (path / "state.json").write_text(json.dumps({"format": 99, "step": 1, "state": {}}))
    with pytest.raises(CheckpointError, match="step-00000001"):
        load_checkpoint(path)


def test_nothing_is_pickled(tmp_path):
    path = save_checkpoint(tmp_path, checkpoint(1), keep=1)
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}


def test_an_absent_folder_holds_none(tmp_path):
    assert list_checkpoints(tmp_path / "nowhere") == []


def test_the_writer_writes_when_due_and_a_step_once(tmp_path):
    packed = []
    writer = CheckpointWriter(
        tmp_path,
        CheckpointSettings(every_steps=3, keep=9),
        lambda step: packed.append(step) or checkpoint(step),
        saved_step=4,
    )
    for step in range(5, 11):
        writer.save_if_due(step)
    writer.save(9)
    writer.save(10)
    assert packed == [6, 9, 10]
    assert names(tmp_path) == ["step-00000006", "step-00000009", "step-00000010"]


def test_the_best_one_stays_however_old_it_is(tmp_path):
    best = BestCheckpoint("m")
    writer = CheckpointWriter(tmp_path, CheckpointSettings(every_steps=1, keep=2), checkpoint, saved_step=0, best=best)
    kept = []
    for step, value in enumerate([1.0, 3.0, 2.0, 2.0, 2.0, 4.0, 0.0], 1):
        best.note({"m": value})
        writer.save_if_due(step)
        kept.append([int(name[-1]) for name in names(tmp_path) if name.startswith("step-")])
        assert json.loads((tmp_path / "best.json").read_text())["step"] == best.step
    assert kept == [[1], [1, 2], [2, 3], [2, 3, 4], [2, 4, 5], [5, 6], [6, 7]]
