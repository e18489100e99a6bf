"""From items to requests and back: splitting, asking again for what failed, and putting the answers in order."""

import json
import random
import re
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic_core import PydanticSerializationError

from reward_proto import ItemResult, ScoreItem, ScoreReply
from rl_client.api.errors import ReplyError
from rl_client.api.exchange import Attempt, Exchange, request_with_retries
from rl_client.api.reply_check import Pin, check_score_reply, parse_reply
from rl_client.api.retry import MODEL_FAULTS, Retries, RetryPolicy

SCORE_PATH = "/v1/score"
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
    """

    references: Mapping[str, str] | None
    pins: Mapping[str, Pin]
    deadline_s: float
    return_logits: bool
    policy: RetryPolicy
    rng: random.Random
    on_latency: Callable[[float], None]
    clock: Callable[[], float] = field(default=time.monotonic)

    def retries(self) -> Retries:
        """A fresh count for one request."""
        return Retries(self.policy, self.rng, self.clock)


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
        ValueError: If a text is not Unicode (it has a lone surrogate), which JSON cannot carry.
    """
    named = [
        item if item.id is not None else item.model_copy(update={"id": str(index)}) for index, item in enumerate(items)
    ]
    return [EncodedItem(item, _item_content(item)) for item in named]


def split_items(items: Sequence[EncodedItem], max_items: int, max_bytes: int) -> list[list[EncodedItem]]:
    """Cut into requests, in order. An item that is over `max_bytes` on its own is sent on its own."""
    requests: list[list[EncodedItem]] = []
    size = 0
    for item in items:
        if not requests or len(requests[-1]) >= max_items or size + len(item.content) > max_bytes:
            requests.append([])
            size = 0
        requests[-1].append(item)
        size += len(item.content) + 1
    return requests


def score_exchange(call: ScoreCall, items: Sequence[EncodedItem]) -> Exchange[list[ItemResult]]:
    """Score the items of one request; retryable errors of single scores are asked again, those scores alone.

    Raises:
        RewardClientError: If a request could not be answered at all. Errors of single scores that stay are returned.
    """
    results = yield from _ask(call, items, call.references)
    retries = call.retries()
    faults = 0
    while True:
        faults += 1
        failed = _failed_scores(results, ask_faults_again=faults < call.policy.max_faults)
        if not failed:
            return results
        delay_s = retries.delay_s(None)
        if delay_s is None:
            return results
        for names, indices in failed.items():
            references = {name: (call.references or {}).get(name, name) for name in names}
            answers = yield from _ask(call, [items[index] for index in indices], references, delay_s)
            for index, answer in zip(indices, answers, strict=True):
                merged = {**results[index].scores, **answer.scores}
                results[index] = ItemResult(id=answer.id, scores=merged)
            delay_s = 0.0


def _failed_scores(results: Sequence[ItemResult], *, ask_faults_again: bool) -> dict[tuple[str, ...], list[int]]:
    """Which items to ask again, by the models that failed on them."""
    failed: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, result in enumerate(results):
        names = tuple(
            name
            for name, score in result.scores.items()
            if score.error is not None
            and score.error.retryable
            and (ask_faults_again or score.error.code not in MODEL_FAULTS)
        )
        if names:
            failed[names].append(index)
    return failed


def _ask(
    call: ScoreCall, items: Sequence[EncodedItem], references: Mapping[str, str] | None, delay_s: float = 0.0
) -> Exchange[list[ItemResult]]:
    attempt = Attempt("POST", SCORE_PATH, uuid.uuid4().hex, _request_content(call, items, references), delay_s)
    started_s = call.clock() + delay_s
    raw = yield from request_with_retries(attempt, call.retries())
    reply = parse_reply(ScoreReply, raw.content)
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
