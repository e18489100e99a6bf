"""One exchange for each endpoint but `/v1/score`, which `scoring` has."""

from collections.abc import Sequence
from urllib.parse import quote

from reward_proto import Granularity, ModelInfo, ModelList, ModelState, SegmentReply, SegmentRequest
from rl_client.api.errors import ApiConnectionError, ApiStatusError, ApiTimeoutError, UnknownModelError
from rl_client.api.exchange import Attempt, Exchange, new_request_id, request_with_retries
from rl_client.api.reply_check import Pin, check_segment_reply, parse_reply
from rl_client.api.retry import Retries

MODELS_PATH = "/v1/models"
SEGMENT_PATH = "/v1/segment"
READY_PATH = "/readyz"
NOT_FOUND = 404
NOT_SERVED = frozenset({ModelState.LOADING, ModelState.UNLOADED})
"""States in which a model is listed and cannot be asked."""


def models_exchange(retries: Retries) -> Exchange[list[ModelInfo]]:
    """Every served model."""
    raw = yield from request_with_retries(_get(MODELS_PATH), retries)
    return parse_reply(ModelList, raw.content).models


def model_exchange(name: str, retries: Retries) -> Exchange[ModelInfo]:
    """One served model."""
    raw = yield from request_with_retries(_get(f"{MODELS_PATH}/{quote(name, safe='@')}"), retries)
    return parse_reply(ModelInfo, raw.content)


def pin_exchange(references: Sequence[str] | None, retries: Retries) -> Exchange[dict[str, Pin]]:
    """The version and runtime that each reference (`name`, `name@alias`, `name@version`) stands for at this moment.

    Raises:
        UnknownModelError: If the service does not serve a reference.
    """
    listed = yield from models_exchange(retries)
    served = [info for info in listed if info.state not in NOT_SERVED]
    if references is None:
        references = [info.name for info in served]
    pins = {}
    for reference in references:
        info = _find(served, reference)
        pins[info.name] = Pin(info.version, info.runtime)
    return pins


def segment_exchange(text: str, granularity: Granularity, retries: Retries) -> Exchange[SegmentReply]:
    """The spans of a text, without scores."""
    content = SegmentRequest(text=text, granularity=granularity).model_dump_json().encode()
    attempt = Attempt("POST", SEGMENT_PATH, new_request_id(), content)
    raw = yield from request_with_retries(attempt, retries)
    reply = parse_reply(SegmentReply, raw.content)
    check_segment_reply(reply, text, granularity)
    return reply


def ready_exchange(retries: Retries) -> Exchange[bool]:
    """Whether the service is up and every model of it can score."""
    try:
        yield from request_with_retries(_get(READY_PATH), retries)
    except (ApiConnectionError, ApiTimeoutError):
        return False
    except ApiStatusError as error:
        if error.retryable:
            return False
        raise
    return True


def _get(path: str) -> Attempt:
    return Attempt("GET", path, new_request_id())


def _find(served: Sequence[ModelInfo], reference: str) -> ModelInfo:
    name, _, suffix = reference.partition("@")
    for info in served:
        if info.name == name and (not suffix or suffix in (info.version, info.digest, *info.aliases)):
            return info
    known = ", ".join(f"{info.name}@{info.version}" for info in served) or "none"
    raise UnknownModelError(f"{reference!r} is not served; served: {known}", status=NOT_FOUND, retryable=False)
