import hashlib
import json

import pytest

from rl_client.errors import CheckpointError, RunFolderError
from rl_client.training.checkpoint import Checkpoint, save_checkpoint
from rl_client.training.run_folder import config_digest, file_digests, open_run, replace_folder


def save(output, step: int, digest: str = "d") -> None:
    save_checkpoint(output / "checkpoints", Checkpoint(step, {}, {"config_digest": digest}), keep=9)


def test_a_new_run_starts_at_zero(tmp_path):
    run = open_run(tmp_path / "a" / "b", "d", resume=False)
    assert run.start_step == 0
    assert run.checkpoint is None
    run.write_run_file({"config": {"seed": 1}})
    assert json.loads((run.output / "run.json").read_text()) == {"config_digest": "d", "config": {"seed": 1}}


@pytest.mark.parametrize("held", ["run.json", "checkpoints", "policy"])
def test_another_run_is_never_overwritten(tmp_path, held):
    (tmp_path / held).mkdir()
    with pytest.raises(RunFolderError, match=f"{held}.*--resume"):
        open_run(tmp_path, "d", resume=False)


def test_a_resumed_run_goes_on_from_the_newest_checkpoint(tmp_path):
    save(tmp_path, 5)
    save(tmp_path, 15)
    assert open_run(tmp_path, "d", resume=True).start_step == 15


def test_a_run_stopped_before_its_first_checkpoint_starts_over(tmp_path):
    open_run(tmp_path, "d", resume=False).write_run_file({})
    assert open_run(tmp_path, "d", resume=True).start_step == 0


def test_other_settings_are_refused(tmp_path):
    save(tmp_path, 5)
    with pytest.raises(CheckpointError, match="other settings"):
        open_run(tmp_path, "e", resume=True)


def test_a_run_is_finished_when_all_steps_are_done_and_the_policy_is_there(tmp_path):
    save(tmp_path, 5)
    assert not open_run(tmp_path, "d", resume=True).is_finished(5)
    (tmp_path / "policy").mkdir()
    assert open_run(tmp_path, "d", resume=True).is_finished(5)
    assert not open_run(tmp_path, "d", resume=True).is_finished(6)


def test_digests_follow_content_and_not_place(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "notes.txt").write_text(name)
    a, b = (list(file_digests([tmp_path / name]).values()) for name in ("a", "b"))
    assert a == b == [hashlib.sha256(b"{}").hexdigest(), hashlib.sha256(b"weights").hexdigest()]
    assert config_digest({"a": 1, "b": 2}) == config_digest({"b": 2, "a": 1}) != config_digest({"a": 1, "b": 3})


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "policy"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(OSError, match="disk full"):
        replace_folder(target, lambda draft: (_ for _ in ()).throw(OSError("disk full")))
    assert [path.name for path in target.iterdir()] == ["old"]
    replace_folder(target, lambda draft: (draft / "new").touch())
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
