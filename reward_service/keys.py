"""API keys: what each may do, and how a caller's is found.

Only hashes are known, so that a copy of the file opens nothing. One round of SHA-256 is enough: a key is 256 random
bits, which nobody guesses at any speed, so that a slow hash, made for passwords that people choose, would slow down
each request and protect nothing.
"""

import hashlib
import hmac
from collections.abc import Sequence
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

JOB_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}$"


class Role(StrEnum):
    """What a key may do. An admin may do what the others may."""

    SCORE = "score"
    ANNOTATE = "annotate"
    ADMIN = "admin"


class Key(BaseModel):
    """One entry of the file.

    Attributes:
        id: Names the key in the log; no secret.
        role: What it may do.
        job: The job of every request with this key, whatever `X-Client-Job` says; the header's if absent.
        sha256: Of the key, in hex.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    role: Role
    job: str | None = Field(default=None, pattern=JOB_PATTERN)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    def allows(self, role: Role) -> bool:
        """Whether it has a role's rights."""
        return self.role in (role, Role.ADMIN)


def find_key(keys: Sequence[Key], secret: str) -> Key | None:
    """The entry of a secret; how long it takes tells nothing of what was right about it."""
    digest = hash_key(secret)
    found = None
    for key in keys:
        if hmac.compare_digest(key.sha256, digest):
            found = key
    return found


def hash_key(secret: str) -> str:
    """What is kept of a key, in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()
