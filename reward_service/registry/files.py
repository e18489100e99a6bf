"""A model's files: no pickle, no code, no link out, nothing changed; and writing that is all or nothing."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reward_service.errors import StoreError

DIGESTS_FILE = "digests.json"
MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "config.json"

PICKLE_SUFFIXES = frozenset(
    {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".h5", ".msgpack"}
)
"""Formats that can run code when they are loaded, or that hide one which can."""

SAFETENSORS_SUFFIX = ".safetensors"
CODE_SUFFIXES = frozenset({".py", ".pyc", ".so", ".pyd", ".dll", ".sh"})

_PICKLE_MARK = b"\x80"
_PICKLE_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")
_ZIP_MAGIC = b"PK\x03\x04"
_SAFETENSORS_LENGTH_BYTES = 8


def check_directory(directory: Path, *, ignore_folders: bool = False) -> list[Path]:
    """Refuse what must not be loaded.

    Args:
        directory: Holds a model's files.
        ignore_folders: Pass over sub-directories, which nothing here opens: an encoder may come with some that only
            its makers' library reads.

    Returns:
        The directory's files, sorted by name.

    Raises:
        StoreError: Naming the file and the fault: a link out of the directory, a sub-directory, a pickle, code, or
            a configuration that asks for code (`auto_map`).
    """
    if not directory.is_dir():
        raise StoreError(f"{directory}: no such directory")
    files = sorted(directory.iterdir())
    if ignore_folders:
        files = [path for path in files if path.is_symlink() or not path.is_dir()]
    for path in files:
        if path.is_symlink() and path.resolve().parent != directory.resolve():
            raise StoreError(f"{path}: a link out of the directory is refused")
        if not path.is_file():
            raise StoreError(f"{path}: only plain files are allowed")
        if path.suffix == SAFETENSORS_SUFFIX:
            if not _is_safetensors(path):
                raise StoreError(f"{path}: is not a safetensors file")
        elif path.suffix.lower() in PICKLE_SUFFIXES or _looks_pickled(path):
            raise StoreError(
                f"{path}: pickled weights are refused; `reward-service models convert DIR OUT` writes weights as "
                f"{WEIGHTS_FILE}, runs nothing and leaves the rest out"
            )
        if path.suffix.lower() in CODE_SUFFIXES:
            raise StoreError(f"{path}: code is refused")
        if path.suffix == ".json" and "auto_map" in read_json_object(path):
            raise StoreError(f"{path}: 'auto_map' asks for custom code, which is refused")
    return files


def check_model_directory(directory: Path) -> list[Path]:
    """`check_directory`, and the files a model needs are there.

    Raises:
        StoreError: As `check_directory`, or a needed file is missing.
    """
    files = check_directory(directory)
    names = {path.name for path in files}
    for needed in (CONFIG_FILE, TOKENIZER_FILE):
        if needed not in names:
            raise StoreError(f"{directory / needed}: missing")
    if not names & {WEIGHTS_FILE, WEIGHTS_INDEX_FILE}:
        raise StoreError(f"{directory / WEIGHTS_FILE}: missing")
    return files


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file; anything but an object reads as an empty one, since only keys are looked up.

    Raises:
        StoreError: The file is missing or is not JSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{path}: missing") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: not readable as JSON: {error}") from error
    return content if isinstance(content, dict) else {}


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def combined_digest(digests: dict[str, str]) -> str:
    """One SHA-256 over every file's name and digest, whatever their order."""
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def verify_files(directory: Path, digests: dict[str, str]) -> None:
    """Compare every file with its recorded digest.

    Raises:
        StoreError: A file was changed, added or removed since it was published.
    """
    present = {path.name for path in check_directory(directory)} - {DIGESTS_FILE}
    for name in sorted(present | set(digests)):
        path = directory / name
        if name not in digests:
            raise StoreError(f"{path}: was added after the version was published")
        if name not in present:
            raise StoreError(f"{path}: missing")
        verify_file(path, digests)


def verify_file(path: Path, digests: dict[str, str]) -> None:
    """Compare one file with its recorded digest.

    Raises:
        StoreError: It was changed since it was published.
    """
    if sha256_of(path) != digests.get(path.name):
        raise StoreError(f"{path}: changed since it was published (its SHA-256 differs from {DIGESTS_FILE})")


def write_durably(path: Path, content: bytes) -> None:
    """Write a whole file and wait until it is on the disk."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def sync_directory(directory: Path) -> None:
    """Wait until the directory's entries are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_durably(source: Path, target: Path) -> None:
    """Copy a file and wait until the copy is on the disk."""
    shutil.copyfile(source, target)
    with target.open("rb") as stream:
        os.fsync(stream.fileno())


def move_into_place(staged: Path, target: Path) -> None:
    """Rename a finished directory; if the same version is there already, leave that one."""
    sync_directory(staged)
    try:
        staged.rename(target)
    except OSError:
        if not target.is_dir():
            raise
    sync_directory(target.parent)


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """A directory to fill and rename; what is left of it is removed."""
    staged = Path(tempfile.mkdtemp(prefix=".staged-", dir=parent))
    staged.chmod(0o755)
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock among processes and threads."""
    with (directory / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _looks_pickled(path: Path) -> bool:
    """Whether the first bytes are a pickle's, or a zip archive's, which is how torch.save wraps one."""
    with path.open("rb") as stream:
        head = stream.read(len(_ZIP_MAGIC))
    return (head[:1] == _PICKLE_MARK and head[1:2] in _PICKLE_PROTOCOLS) or head == _ZIP_MAGIC


def _is_safetensors(path: Path) -> bool:
    """Whether a JSON header follows the eight bytes of its length, whose own values may look like a pickle's."""
    with path.open("rb") as stream:
        return stream.read(_SAFETENSORS_LENGTH_BYTES + 1)[_SAFETENSORS_LENGTH_BYTES:] == b"{"
