import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from rl_client.errors import OutputError
from rl_client.training import durable
from rl_client.training.durable import (
    make_folder,
    move_folder,
    remove_drafts,
    remove_folder,
    write_folder,
    write_json,
    write_text,
    writing,
)


class KilledError(BaseException):
    """Stands for a kill: nothing of the code under test may go on after it."""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fail(_):
    raise OSError("disk full")


def test_a_file_is_replaced_whole(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"x": 1})
    monkeypatch.setattr(durable, "sync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_text(tmp_path / "a.json", "half")
    assert (tmp_path / "a.json").read_text() == '{\n "x": 1\n}\n'
    assert names(tmp_path) == ["a.json"]
    monkeypatch.undo()
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    write_text(tmp_path / "a.json", "é")
    assert (tmp_path / "a.json").read_bytes() == "é".encode()


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "policy"
    write_folder(target, lambda draft: (draft / "old").touch())
    with pytest.raises(OSError, match="disk full"):
        write_folder(target, lambda draft: [(draft / "new").touch(), fail(draft)])
    assert names(target) == ["old"]
    write_folder(target, lambda draft: (draft / "new").touch())
    assert names(target) == ["new"]
    assert names(tmp_path) == ["policy"]


def test_every_byte_is_on_disk_before_the_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(durable, "sync", lambda path: synced.append((path.name, (tmp_path / "run").exists())))

    def fill(draft):
        (draft / "inner").mkdir()
        (draft / "inner" / "weights").touch()

    write_folder(tmp_path / "run", fill)
    drafts = {".unfinished-run", "inner", "weights"}
    assert {name for name, exists in synced if not exists} == drafts
    assert synced[-1] == (tmp_path.name, True)


def test_a_removal_that_is_cut_off_leaves_nothing_of_that_name(tmp_path, monkeypatch):
    write_folder(tmp_path / "step-1", lambda draft: [(draft / name).touch() for name in "abc"])

    def die(path):
        (path / "a").unlink()
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(durable.shutil, "rmtree", die)
        with pytest.raises(KilledError):
            remove_folder(tmp_path / "step-1")
    assert names(tmp_path) == [".unfinished-old-step-1"]
    (tmp_path / ".unfinished-best.json").touch()
    remove_drafts(tmp_path)
    assert names(tmp_path) == []
    remove_folder(tmp_path / "step-1")


def test_the_names_of_new_folders_are_on_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(durable, "sync", synced.append)
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert synced == [tmp_path, tmp_path / "a"]
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        make_folder(tmp_path / "file")


def test_a_folder_is_moved_over_another(tmp_path):
    write_folder(tmp_path / "a", lambda draft: (draft / "a").touch())
    write_folder(tmp_path / "b", lambda draft: (draft / "b").touch())
    move_folder(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == ["b"]
    assert names(tmp_path / "b") == ["a"]


def test_failures_of_the_disk_are_errors_of_the_run(tmp_path):
    with (
        pytest.raises(OutputError, match=r"the log could not be written: .*No such file.*--resume"),
        writing("the log"),
    ):
        (tmp_path / "nowhere" / "file").touch()
    with pytest.raises(OutputError), writing("weights"):
        save_file({"a": torch.zeros(2)}, tmp_path / "nowhere" / "file")
    with pytest.raises(KeyError), writing("the log"):  # what is no failure of the disk stays what it is
        raise KeyError


def test_a_process_killed_while_it_writes_leaves_the_old_folder(tmp_path):
    write_folder(tmp_path / "run", lambda draft: (draft / "old").touch())
    script = f"""
import os, pathlib, signal
from rl_client.training.durable import write_folder
def fill(draft):
    (draft / "new").touch()
    os.kill(os.getpid(), signal.SIGKILL)
write_folder(pathlib.Path({str(tmp_path / "run")!r}), fill)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert names(tmp_path / "run") == ["old"]
    write_folder(tmp_path / "run", lambda draft: (draft / "newer").touch())
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["newer"]
