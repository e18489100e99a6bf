"""Who asks, as far as the ledger wants to know it."""

import re

from fastapi import Request

from reward_service.errors import InvalidRequestError
from reward_service.ledger.answer import Asker

RUN_HEADER = "X-Client-Run"
STEP_HEADER = "X-Client-Step"
MAX_RUN_CHARS = 256

_STEP = re.compile(r"[0-9]{1,18}")
"""Fits into 64 bits."""


def read_asker(request: Request) -> Asker:
    """Read the headers that name the run and the step.

    Raises:
        InvalidRequestError: They are not what they must be. It is told whether or not there is a ledger.
    """
    run = decoded(request.headers.get(RUN_HEADER, ""))
    if len(run) > MAX_RUN_CHARS or not run.isprintable():
        raise InvalidRequestError(f"{RUN_HEADER}: not printable, or over {MAX_RUN_CHARS} characters", path=RUN_HEADER)
    step = request.headers.get(STEP_HEADER)
    if step is not None and not _STEP.fullmatch(step):
        raise InvalidRequestError(f"{STEP_HEADER}: must be a whole number below 10^18", path=STEP_HEADER)
    state = request.state
    return Asker(state.request_id, state.client_job, run, None if step is None else int(step))


def decoded(header: str) -> str:
    """A header's value as it was meant: it arrives as Latin-1, and what is UTF-8 as well was meant so."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeDecodeError:
        return header
