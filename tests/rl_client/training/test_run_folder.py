import hashlib
import json
import shutil

import pytest

from rl_client.errors import CheckpointError, OutputError, RunFolderError
from rl_client.training.checkpoint import Checkpoint, save_checkpoint
from rl_client.training.run_folder import config_digest, file_digests, open_run, work_in


def save(output, step: int, digest: str = "d") -> None:
    save_checkpoint(output / "checkpoints", Checkpoint(step, {}, {"config_digest": digest}), keep=9)


def test_a_new_run_starts_at_zero(tmp_path):
    run = open_run(tmp_path / "a" / "b", "d", resume=False)
    assert run.start_step == 0
    assert run.checkpoint is None
    run.write_run_file({"config": {"seed": 1}})
    told = json.loads((run.output / "run.json").read_text())
    assert told == {"config_digest": "d", "policy_step": 0, "config": {"seed": 1}}


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


def test_a_run_goes_on_from_the_newest_checkpoint_that_is_whole(tmp_path, caplog):
    for step in (5, 10, 15):
        save(tmp_path, step)
    (tmp_path / "checkpoints" / "step-00000015" / "state.json").write_text("{")
    assert open_run(tmp_path, "d", resume=True).start_step == 10
    assert "step-00000015 cannot be read" in caplog.text
    assert "going on from step 10" in caplog.text
    for step in (5, 10):
        shutil.rmtree(tmp_path / "checkpoints" / f"step-{step:08d}")
    with pytest.raises(CheckpointError, match="step-00000015 cannot be read"):  # never from the start, unasked
        open_run(tmp_path, "d", resume=True)


def leave_policy(run, step: int, text: str) -> None:
    run.leave_policy(step, lambda folder: (folder / "weights").write_text(text))


def test_a_run_is_finished_when_all_steps_are_done_and_their_policy_is_there(tmp_path):
    save(tmp_path, 5)
    run = open_run(tmp_path, "d", resume=True)
    run.write_run_file({"config": {}})
    assert not run.is_finished(5)
    leave_policy(run, 5, "five")
    again = open_run(tmp_path, "d", resume=True)
    assert again.is_finished(5)
    assert again.is_finished(4)
    assert not again.is_finished(6)
    assert json.loads((tmp_path / "run.json").read_text()) == {"config_digest": "d", "policy_step": 5, "config": {}}


def test_the_policy_of_a_shorter_run_does_not_finish_a_prolonged_one(tmp_path):
    """It was killed when all of its steps were done, and before its policy was there."""
    save(tmp_path, 5)
    leave_policy(open_run(tmp_path, "d", resume=True), 5, "five")
    prolonged = open_run(tmp_path, "d", resume=True)
    prolonged.write_run_file({})
    save(tmp_path, 9)
    resumed = open_run(tmp_path, "d", resume=True)
    assert resumed.start_step == 9
    assert not resumed.is_finished(9)
    leave_policy(resumed, 9, "nine")
    assert open_run(tmp_path, "d", resume=True).is_finished(9)
    assert (tmp_path / "policy" / "weights").read_text() == "nine"


def test_a_run_of_an_earlier_version_is_finished_by_its_policy(tmp_path):
    save(tmp_path, 5)
    (tmp_path / "policy").mkdir()
    (tmp_path / "run.json").write_text('{"config_digest": "d"}')
    assert open_run(tmp_path, "d", resume=True).is_finished(5)


def test_a_finished_policy_without_a_checkpoint_is_not_trained_over(tmp_path):
    (tmp_path / "policy").mkdir()
    with pytest.raises(RunFolderError, match="no checkpoint to go on from"):
        open_run(tmp_path, "d", resume=True)


def test_a_disk_that_refuses_is_an_error_of_the_run(tmp_path):
    run = open_run(tmp_path, "d", resume=False)
    run.leave("value", lambda folder: (folder / "old").touch())
    with pytest.raises(OutputError, match=r"value could not be written.*disk full"):
        run.leave("value", lambda folder: (_ for _ in ()).throw(OSError("disk full")))
    assert [path.name for path in (tmp_path / "value").iterdir()] == ["old"]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"), work_in(tmp_path / "file"):
        pass


def test_one_process_at_a_time_works_in_a_folder(tmp_path):
    with work_in(tmp_path / "run"):
        with pytest.raises(RunFolderError, match="another process is writing"), work_in(tmp_path / "run"):
            pass
        with work_in(tmp_path / "run", writes=False):  # one beside the one that writes
            pass
    with work_in(tmp_path / "run"):
        pass


def test_digests_follow_content_and_not_place(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "notes.txt").write_text(name)
    a, b = (list(file_digests([tmp_path / name]).values()) for name in ("a", "b"))
    assert a == b == [hashlib.sha256(b"{}").hexdigest(), hashlib.sha256(b"weights").hexdigest()]
    assert config_digest({"a": 1, "b": 2}) == config_digest({"b": 2, "a": 1}) != config_digest({"a": 1, "b": 3})
