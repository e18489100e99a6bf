import json

import pytest
import torch

from rl_client.errors import CheckpointError, OutputError
from rl_client.training import checkpoint as module
from rl_client.training.best_checkpoint import BestCheckpoint
from rl_client.training.checkpoint import (
    Checkpoint,
    CheckpointWriter,
    checkpoint_path,
    list_checkpoints,
    load_checkpoint,
    load_newest,
    save_checkpoint,
)
from rl_client.training.settings_checkpoint import CheckpointSettings
from tests.rl_client.small_disk import no_file_larger_than


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


def test_a_disk_that_is_full_leaves_the_earlier_ones_and_no_draft(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, checkpoint(1), keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json", lambda path, value: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OutputError, match="step-00000002 could not be written: disk full"):
            save_checkpoint(tmp_path, checkpoint(2), keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001"]
    assert load_checkpoint(list_checkpoints(tmp_path)[-1]).step == 1
    save_checkpoint(tmp_path, checkpoint(3), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000003"]


def test_a_write_that_the_system_refuses_is_an_error_that_leaves_nothing(tmp_path):
    save_checkpoint(tmp_path, checkpoint(1), keep=1)
    sizes = [file.stat().st_size for file in checkpoint_path(tmp_path, 1).iterdir()]
    for limit_bytes in range(0, max(sizes), 40):
        with pytest.raises(OutputError, match="step-00000002 could not be written"), no_file_larger_than(limit_bytes):
            save_checkpoint(tmp_path, checkpoint(2), keep=1)
        assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert load_checkpoint(checkpoint_path(tmp_path, 1)).step == 1
    with no_file_larger_than(max(sizes)):
        save_checkpoint(tmp_path, checkpoint(2), keep=1)
    assert load_checkpoint(checkpoint_path(tmp_path, 2)).step == 2


@pytest.mark.parametrize(
    "damage", ["truncate", "flip", "no_tensors", "no_state", "empty_state", "list_state", "format", "empty"]
)
def test_a_damaged_checkpoint_is_an_error(tmp_path, damage):
    path = save_checkpoint(tmp_path, checkpoint(1), keep=1)
    weights = path / "weights.safetensors"
    content = weights.read_bytes()
    texts = {"empty_state": "", "list_state": "[]", "format": json.dumps({"format": 99, "step": 1, "state": {}})}
    if damage in texts:
        (path / "state.json").write_text(texts[damage])
    elif damage == "truncate":
        weights.write_bytes(content[:-4])
    elif damage == "flip":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "no_tensors":
        (path / "empty.safetensors").unlink()
    elif damage == "no_state":
        (path / "state.json").unlink()
    else:
        for file in path.iterdir():
            file.unlink()
    with pytest.raises(CheckpointError, match="step-00000001"):
        load_checkpoint(path)


def test_the_newest_that_is_whole_is_read(tmp_path, caplog):
    assert load_newest(tmp_path) is None
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, checkpoint(step), keep=9)
    for step in (3, 4):
        (checkpoint_path(tmp_path, step) / "state.json").unlink()
    found = load_newest(tmp_path)
    assert found is not None
    assert found.step == 2
    assert len(caplog.records) == 2
    for step in (1, 2):
        (checkpoint_path(tmp_path, step) / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"step-00000004(.|\n)*step-00000001"):
        load_newest(tmp_path)


def test_a_checkpoint_of_an_earlier_version_lists_no_files(tmp_path):
    path = save_checkpoint(tmp_path, checkpoint(1), keep=1)
    content = json.loads((path / "state.json").read_text())
    del content["files"]
    (path / "state.json").write_text(json.dumps(content))
    assert load_checkpoint(path).step == 1


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


def test_what_is_to_precede_a_checkpoint_does(tmp_path):
    writer = CheckpointWriter(tmp_path, CheckpointSettings(every_steps=2), checkpoint, saved_step=0)
    there = []
    writer.precede(lambda: there.append(names(tmp_path)))
    for step in range(1, 5):
        writer.save_if_due(step)
    assert there == [[], ["step-00000002"]]


def test_a_run_that_goes_on_before_a_damaged_checkpoint_sets_it_aside(tmp_path):
    for step in (2, 4):
        save_checkpoint(tmp_path, checkpoint(step), keep=9)
    (checkpoint_path(tmp_path, 4) / "state.json").unlink()
    settings = CheckpointSettings(every_steps=2, keep=2)
    assert CheckpointWriter(tmp_path, settings, checkpoint, saved_step=2, writes=False)
    assert names(tmp_path) == ["step-00000002", "step-00000004"]
    writer = CheckpointWriter(tmp_path, settings, checkpoint, saved_step=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged-step-00000004", "step-00000002"]
    writer.save_if_due(4)
    assert names(tmp_path) == ["step-00000002", "step-00000004"]
    assert load_checkpoint(checkpoint_path(tmp_path, 4)).step == 4


def followed(values: list[float]) -> BestCheckpoint:
    best = BestCheckpoint("m")
    for step, value in enumerate(values, 1):
        best.note({"m": value})
        best.judge(step)
    return best


def test_a_crash_before_the_best_was_named_is_made_good(tmp_path):
    """Checkpoint 2 was written, with itself as the best, and the crash came before `best.json` and left its draft."""
    save_checkpoint(tmp_path, checkpoint(2), keep=1)
    (tmp_path / "best.json").write_text('{"step": 1}')
    (tmp_path / ".unfinished-best.json").write_text("{")
    settings = CheckpointSettings(every_steps=1, keep=1)
    writer = CheckpointWriter(tmp_path, settings, checkpoint, saved_step=2, best=followed([1.0, 2.0]))
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 2
    writer.save(3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.json", "step-00000002", "step-00000003"]


def test_a_best_checkpoint_that_is_gone_is_no_longer_the_best(tmp_path, caplog):
    save_checkpoint(tmp_path, checkpoint(2), keep=1)
    best = followed([5.0, 2.0])
    writer = CheckpointWriter(tmp_path, CheckpointSettings(every_steps=1, keep=1), checkpoint, saved_step=2, best=best)
    assert "of step 1, is gone" in caplog.text
    best.note({"m": 3.0})
    writer.save_if_due(3)
    assert (best.step, best.value) == (3, 3.0)
