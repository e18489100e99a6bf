import errno
import os
import subprocess
import sys

import pytest

from rl_client import folder_lock
from rl_client.errors import RunFolderError
from rl_client.folder_lock import hold_lock


def test_a_second_holder_is_refused_and_told_the_first(tmp_path):
    lock = tmp_path / "lock"
    with hold_lock(lock, tmp_path):
        told = f"is writing {tmp_path}: process {os.getpid()} on "
        with pytest.raises(RunFolderError, match=told), hold_lock(lock, tmp_path):
            pass
        with hold_lock(tmp_path / "other", tmp_path):
            pass
    with hold_lock(lock, tmp_path):
        pass


def test_another_process_is_refused_until_the_first_is_gone(tmp_path):
    lock = tmp_path / "lock"
    script = f"""
import pathlib, sys
from rl_client.folder_lock import hold_lock
with hold_lock(pathlib.Path({str(lock)!r}), pathlib.Path("out")):
    print("held", flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(RunFolderError, match=f"process {process.pid} on"), hold_lock(lock, tmp_path):
        pass
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    with hold_lock(lock, tmp_path):
        pass


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def flock(descriptor, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(folder_lock.fcntl, "flock", flock)
    with hold_lock(tmp_path / "lock", tmp_path):
        pass
    assert "cannot be locked" in caplog.text
