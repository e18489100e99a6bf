"""From items to requests and back: splitting, asking again for what failed, and putting the answers in order."""

import json
import math
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic_core import PydanticSerializationError

from reward_proto import (
    RETRYABLE,
    ErrorCode,
    ItemResult,
    ModelInfo,
    ModelScore,
    ScoreError,
    ScoreItem,
    ScoreReply,
)
from rl_client.api.errors import ApiStatusError, ReplyError
from rl_client.api.exchange import Attempt, Exchange, is_of_another_request, new_request_id, request_with_retries
from rl_client.api.reply_check import Pin, check_score_reply, parse_reply
from rl_client.api.retry import MODEL_FAULTS, Retries, RetryPolicy

SCORE_PATH = "/v1/score"
SCORE_ERRORS = RETRYABLE | {ErrorCode.TOO_LONG, ErrorCode.MISSING_FIELD}
"""Codes that a single score may carry; the others are of a whole request."""
_VERSION = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class EncodedItem:
    """An item, its id filled in, and its JSON."""

    item: ScoreItem
    content: bytes


@dataclass(frozen=True, slots=True)
class ScoreCall:
    """What every request of one `score` call has in common.

    Attributes:
        references: By model name what to ask for (`name`, `name@alias`, `name@version`); None asks for all loaded ones.
        pins: Where the scores of some models must come from.
        deadline_s: The deadline that the service is told.
        return_logits: Whether each segment carries the model's raw outputs.
        policy: When to ask again.
        rng: Source of jitter.
        on_latency: Told the seconds from the first sending of each request to its checked answer.
        headers: Sent with every request.
    """

    references: Mapping[str, str] | None
    pins: Mapping[str, Pin]
    deadline_s: float
    return_logits: bool
    policy: RetryPolicy
    rng: random.Random
    on_latency: Callable[[float], None]
    clock: Callable[[], float] = field(default=time.monotonic)
    headers: Mapping[str, str] = field(default_factory=dict)


def resolve_models(
    models: Sequence[str] | None, pinned: Mapping[str, Pin]
) -> tuple[dict[str, str] | None, dict[str, Pin]]:
    """What to ask the service for, and where the scores must come from.

    Args:
        models: What the caller wants; None means the pinned models, or all loaded ones without pins.
        pinned: Pins by model name.

    Returns:
        references: By model name the reference to send; None asks for every loaded model.
        pins: `pinned`, and the versions that the caller spelled out as `name@version`.

    Raises:
        ValueError: If `models` is empty or names a model twice.
    """
    if models is None:
        return ({name: f"{name}@{pin.version}" for name, pin in pinned.items()} or None), dict(pinned)
    if not models:
        raise ValueError("models must name at least one model, or be None for all")
    references: dict[str, str] = {}
    pins = dict(pinned)
    for reference in models:
        name, _, suffix = reference.partition("@")
        if name in references:
            raise ValueError(f"model {name!r} is named twice; a reply has one score for each name")
        if not suffix and name in pinned:
            reference = f"{name}@{pinned[name].version}"
        elif _VERSION.fullmatch(suffix) and name not in pinned:
            pins[name] = Pin(suffix)
        references[name] = reference
    return references, pins


def refused_score(info: ModelInfo, error: ApiStatusError) -> ModelScore:
    """In the place of a model's score: why the service refused the request for it."""
    return ModelScore(
        model=info.name,
        version=info.version,
        runtime=info.runtime,
        granularity=info.granularity,
        segments=None,
        error=ScoreError(code=error.code or ErrorCode.INTERNAL, message=error.message, retryable=error.retryable),
    )


def join_results(parts: Sequence[Sequence[ItemResult]]) -> list[ItemResult]:
    """The results of all requests of one call, in order.

    Raises:
        ReplyError: If the requests were answered by different models: some loaded or unloaded in between.
    """
    results = [result for part in parts for result in part]
    for result in results:
        if result.scores.keys() != results[0].scores.keys():
            raise ReplyError(
                f"the served models changed between requests, at item {result.id!r}; name or pin the models"
            )
    return results


def encode_items(items: Sequence[ScoreItem]) -> list[EncodedItem]:
    """Serialise each item once; one without an id is named by its index.

    Raises:
        ValueError: If two items share an id, or a text has a lone surrogate, which JSON cannot carry.
    """
    encoded = {}
    for index, item in enumerate(items):
        named = item if item.id is not None else item.model_copy(update={"id": str(index)})
        if named.id in encoded:
            raise ValueError(f"item {index} has the id {named.id!r} of another item")
        encoded[named.id] = EncodedItem(named, _item_content(named))
    return list(encoded.values())


def split_items(items: Sequence[EncodedItem], max_items: int, max_bytes: int) -> list[list[EncodedItem]]:
    """Cut into requests of about equal numbers, in order. An item over `max_bytes` is sent on its own."""
    least_requests = math.ceil(len(items) / max_items)
    requests: list[list[EncodedItem]] = []
    size = 0
    last_share = -1
    for index, item in enumerate(items):
        share = index * least_requests // len(items)
        if share != last_share or size + len(item.content) > max_bytes:
            requests.append([])
            size = 0
        last_share = share
        requests[-1].append(item)
        size += len(item.content) + 1
    return requests


def score_exchange(call: ScoreCall, items: Sequence[EncodedItem]) -> Exchange[list[ItemResult]]:
    """Score the items of one request; retryable errors of single scores are asked again, those scores alone.

    Raises:
        RewardClientError: If a request could not be answered at all. Errors of single scores that stay are returned.
    """
    retries = Retries(call.policy, call.rng, call.clock)
    results = yield from _ask(call, items, call.references, retries)
    given_up: set[tuple[int, str]] = set()
    while True:
        failed = {key: code for key, code in _retryable_errors(results).items() if key not in given_up}
        if not MODEL_FAULTS.isdisjoint(failed.values()):
            retries.count_fault()
            if not retries.faults_left:
                failed = {key: code for key, code in failed.items() if code not in MODEL_FAULTS}
        delay_s = retries.delay_s(None) if failed else None
        if delay_s is None:
            return results
        for names, indices in _by_models(failed).items():
            again = [items[index] for index in indices]
            references = {name: (call.references or {}).get(name, name) for name in names}
            try:
                answers = yield from _ask(call, again, references, retries, delay_s)
            except ApiStatusError as error:
                # When all scores of a request fail alike the service refuses it whole; the other scores still stand.
                if error.code is None or error.code not in SCORE_ERRORS:
                    raise
                reason = ScoreError(code=error.code, message=error.message, retryable=error.retryable)
                answers = [_with_error(results[index], names, reason) for index in indices]
                given_up.update((index, name) for index in indices for name in names)
            for index, answer in zip(indices, answers, strict=True):
                results[index] = ItemResult(id=answer.id, scores={**results[index].scores, **answer.scores})
            delay_s = 0.0


def _retryable_errors(results: Sequence[ItemResult]) -> dict[tuple[int, str], ErrorCode]:
    """The code of each score, by item index and model name, that may be given if it is asked for again."""
    return {
        (index, name): score.error.code
        for index, result in enumerate(results)
        for name, score in result.scores.items()
        if score.error is not None and score.error.retryable
    }


def _by_models(failed: Iterable[tuple[int, str]]) -> dict[tuple[str, ...], list[int]]:
    """Item indices by the models that failed on them: one request for each combination."""
    names: dict[int, tuple[str, ...]] = defaultdict(tuple)
    for index, name in failed:
        names[index] += (name,)
    indices: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, failed_models in names.items():
        indices[failed_models].append(index)
    return indices


def _with_error(result: ItemResult, names: Sequence[str], error: ScoreError) -> ItemResult:
    """Some failed scores of a result, with what became of them."""
    scores = {name: result.scores[name].model_copy(update={"error": error}) for name in names}
    return ItemResult(id=result.id, scores=scores)


def _ask(
    call: ScoreCall,
    items: Sequence[EncodedItem],
    references: Mapping[str, str] | None,
    retries: Retries,
    delay_s: float = 0.0,
) -> Exchange[list[ItemResult]]:
    content = _request_content(call, items, references)
    attempt = Attempt("POST", SCORE_PATH, new_request_id(), content, delay_s, call.headers)
    started_s = call.clock() + delay_s
    raw = yield from request_with_retries(attempt, retries)
    reply = parse_reply(ScoreReply, raw.content)
    if is_of_another_request(reply.request_id, attempt):
        raise ReplyError(f"the reply is that of the request {reply.request_id}, not of {attempt.request_id}")
    names = None if references is None else frozenset(references)
    check_score_reply(reply, [item.item for item in items], names, call.pins, return_logits=call.return_logits)
    call.on_latency(call.clock() - started_s)
    return reply.results


def _request_content(call: ScoreCall, items: Sequence[EncodedItem], references: Mapping[str, str] | None) -> bytes:
    """The body of a `ScoreRequest`, joined from items that are JSON already."""
    rest: dict[str, object] = {"timeout_s": call.deadline_s, "return_logits": call.return_logits}
    if references is not None:
        rest["models"] = list(references.values())
    joined = b",".join(item.content for item in items)
    return b'{"items":[' + joined + b"]," + json.dumps(rest).encode()[1:]


def _item_content(item: ScoreItem) -> bytes:
    try:
        return item.model_dump_json(exclude_defaults=True).encode()
    except PydanticSerializationError as error:
        raise ValueError(f"item {item.id!r} cannot be sent: {error}") from error
