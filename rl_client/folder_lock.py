"""One process at a time writes a folder."""

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rl_client.errors import RunFolderError

logger = logging.getLogger(__name__)


@contextmanager
def hold_lock(lock: Path, output: Path) -> Iterator[None]:
    """Within it no other process is within it for the same file; the system lets go when a process ends, however.

    A file system without locks (Lustre mounted without `flock`, some of NFS) is warned of and not refused.

    Args:
        lock: The file that stands for what is written; made if absent, and left. It names its last holder.
        output: What is written, for the message.

    Raises:
        RunFolderError: If another process holds it.
    """
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = lock.read_text(encoding="utf-8", errors="replace").strip() or "unknown"
            raise RunFolderError(f"another process is writing {output}: {holder}") from error
        except OSError as error:
            logger.warning("%s cannot be locked (%s): see to it that no other process writes %s", lock, error, output)
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(descriptor)
