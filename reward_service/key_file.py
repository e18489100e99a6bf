"""The file of API keys: read, and added to."""

import os
import secrets
from pathlib import Path

import yaml
from pydantic import field_validator

from reward_service.config import load_settings
from reward_service.errors import ConfigError
from reward_service.keys import JOB_PATTERN, Key, Role, hash_key
from reward_service.section import Section

KEY_PREFIX = "frk_"
"""Lets people and secret scanners tell a key from other random text."""

KEY_BYTES = 32
ID_BYTES = 4

_HEADER = (
    "# Keys of the reward service, as SHA-256 hashes: `reward-service keys new` adds one; delete an entry to revoke.\n"
)


class KeyFile(Section):
    """The file that `auth.keys` names."""

    keys: tuple[Key, ...]

    @field_validator("keys")
    @classmethod
    def _are_unique(cls, keys: tuple[Key, ...]) -> tuple[Key, ...]:
        for what in ("id", "sha256"):
            values = [getattr(key, what) for key in keys]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"the same {what} twice: {', '.join(twice)}")
        return keys


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file.

    Raises:
        ConfigError: It cannot be read, or has faults; every fault is listed with its place.
    """
    return load_settings(path, KeyFile).keys


def add_key(path: Path, role: Role, job: str | None = None) -> str:
    """Make a key and write its hash to the file, which is made if there is none and replaced as a whole.

    Returns:
        The key itself, which is stored nowhere.

    Raises:
        ConfigError: The file that is there has faults, or the job is no job name.
        OSError: It cannot be written.
    """
    keys = read_keys(path) if path.exists() else ()
    secret = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    try:
        added = Key(id=secrets.token_hex(ID_BYTES), role=role, job=job, sha256=hash_key(secret))
    except ValueError as error:
        raise ConfigError("job", [f"{job!r} is not a job name: it must match {JOB_PATTERN}"]) from error
    content = {"keys": [key.model_dump(mode="json", exclude_none=True) for key in (*keys, added)]}
    if not path.parent.is_dir():
        raise ConfigError(str(path), [f"{path.parent} is no folder"])
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.touch(mode=0o600)
    staged.write_text(_HEADER + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    staged.replace(path)
    return secret
