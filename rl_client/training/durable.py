"""Files and folders that a crash, at whatever moment, leaves as they were or as they shall be.

Each is written under a draft name, forced to disk, and renamed. What a crash leaves behind begins with `DRAFT`, and
whoever writes the same thing next removes it.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rl_client.errors import OutputError

DRAFT = ".unfinished-"
_OLD = f"{DRAFT}old-"


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Within it a failure of the disk is an error of the run.

    Raises:
        OutputError: In place of what the system or safetensors raises.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{what} could not be written: {error}. Once it can be, --resume goes on from the last checkpoint"
        ) from error


def make_folder(folder: Path) -> None:
    """Make a folder, and those it is in, and force their names to disk."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8, whole or not at all."""
    draft = path.with_name(f"{DRAFT}{path.name}")
    try:
        draft.write_text(text, encoding="utf-8")
        sync(draft)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)  # it may hold the room that is missing
        raise
    sync(path.parent)


def write_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Write a folder, whole or not at all.

    Args:
        target: Its name; an earlier folder of that name is replaced.
        write: Fills the empty folder that it is given.
    """
    draft = target.with_name(f"{DRAFT}{target.name}")
    _delete(draft)
    draft.mkdir(parents=True)
    try:
        write(draft)
        for path in (*draft.rglob("*"), draft):
            sync(path)
    except BaseException:
        _delete(draft)  # it may hold the room that is missing
        raise
    old = _set_aside(target)
    draft.rename(target)
    sync(target.parent)
    _delete(old)


def remove_folder(folder: Path) -> None:
    """Remove a folder; whoever looks for it finds all of it or nothing."""
    _delete(_set_aside(folder))


def move_folder(folder: Path, target: Path) -> None:
    """Give a folder another name; one that has it already is removed."""
    remove_folder(target)
    folder.rename(target)
    sync(target.parent)


def remove_drafts(folder: Path) -> None:
    """Remove what crashes left in a folder."""
    for path in folder.glob(f"{DRAFT}*"):
        _delete(path)


def sync(path: Path) -> None:
    """Force a file's content, or a folder's list of names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _set_aside(folder: Path) -> Path:
    old = folder.with_name(f"{_OLD}{folder.name}")
    _delete(old)
    if folder.exists():
        folder.rename(old)
    return old


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
