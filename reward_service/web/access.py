"""Who calls, and what they may do.

Without keys scoring is open to everybody who reaches the port, and what changes the service is closed to all.
"""

import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import Headers

from reward_service.errors import ForbiddenError, UnauthenticatedError
from reward_service.keys import Key, Role, find_key
from reward_service.web.annotate.page import ANNOTATE_FILES, ANNOTATE_PREFIX
from reward_service.web.asker import decoded
from reward_service.web.ui.routes import UI_FILES

CLIENT_JOB_HEADER = "X-Client-Job"
METRICS_PATH = "/metrics"
OPEN_PATHS = frozenset(
    {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json", *UI_FILES, *ANNOTATE_FILES}
)
"""What probes ask, and what everybody may read: no texts, no scores, no names of jobs."""

_BEARER = "bearer"
_BASIC = "basic"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Attributes:
        key: The key; None without one, or with a wrong one.
        job: The training job; empty if none is named.
    """

    key: Key | None
    job: str


class Access:
    """Knows the keys.

    Args:
        keys: All that are valid; None leaves scoring open.
        open_metrics: Whether `/metrics` needs no key.
    """

    def __init__(self, keys: Sequence[Key] | None = None, *, open_metrics: bool = True) -> None:
        self.keys = keys
        self.open_metrics = open_metrics

    def identify(self, headers: Headers) -> Caller:
        """Tell who calls. A caller without a valid key has no job where keys are asked for: anybody could name one."""
        user, secret = _credentials(headers)
        named = decoded(headers[CLIENT_JOB_HEADER]) if CLIENT_JOB_HEADER in headers else user
        if self.keys is None:
            return Caller(None, named)
        key = None if secret is None else find_key(self.keys, secret)
        if key is None:
            return Caller(None, "")
        return Caller(key, key.job or named)

    def check(self, path: str, caller: Caller) -> None:
        """Let a caller use an endpoint that scores, tells or takes annotations, or refuse.

        Raises:
            UnauthenticatedError: It needs a key.
            ForbiddenError: The key may not do this.
        """
        is_open = path in OPEN_PATHS or (path == METRICS_PATH and self.open_metrics)
        if self.keys is None or is_open:
            return
        if caller.key is None:
            raise UnauthenticatedError("a valid key is needed: Authorization: Bearer KEY")
        needed = Role.ANNOTATE if path.startswith(ANNOTATE_PREFIX) else Role.SCORE
        if not caller.key.allows(needed):
            raise ForbiddenError(f"this key may not do this: it needs the role {needed}")

    def check_admin(self, caller: Caller) -> None:
        """Let a caller change the service, or refuse.

        Raises:
            UnauthenticatedError: It needs a key.
            ForbiddenError: The key is no admin's, or there are no keys at all.
        """
        if self.keys is None:
            raise ForbiddenError("no keys are configured (auth.keys), so that nobody may change what is served")
        if caller.key is None:
            raise UnauthenticatedError("a valid key is needed: Authorization: Bearer KEY")
        if not caller.key.allows(Role.ADMIN):
            raise ForbiddenError("this key may not change what is served: it needs the role admin")


def _credentials(headers: Headers) -> tuple[str, str | None]:
    """The job and the key of `Authorization`.

    Trainers that can set no header have an address that holds both, `http://JOB:KEY@host`, of which every HTTP library
    makes basic authentication.
    """
    scheme, _, given = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == _BEARER:
        return "", given.strip()
    if scheme.lower() != _BASIC:
        return "", None
    try:
        user, _, secret = base64.b64decode(given.strip(), validate=True).decode().partition(":")
    except ValueError:
        return "", None
    return user, secret


def guard(access: Access) -> Callable[[Request], Awaitable[None]]:
    """A dependency of the whole app, so that no endpoint is open by oversight."""

    async def check(request: Request) -> None:
        access.check(request.scope["route"].path, request.state.caller)

    return check
