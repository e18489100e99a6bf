"""Wire models to domain values and back. Wire models go no further in than this."""

import asyncio
from collections.abc import Sequence
from math import isfinite
from typing import Any

from pydantic_core import to_json

from reward_proto.errors import RETRYABLE
from reward_proto.models import Calibration, ModelInfo, ModelState
from reward_proto.score import ScoreItem
from reward_service.core.scorer import ServedModel
from reward_service.domain import ItemScore, ModelCard, Outcome, Span, TextItem
from reward_service.errors import InvalidRequestError, ServiceError

PAUSE_SEGMENTS = 1000
"""A request may have hundreds of thousands of segments. After so many others have their turn on the event loop."""


def to_ids(items: Sequence[ScoreItem]) -> list[str]:
    """Each item's id, its index where it has none.

    Raises:
        InvalidRequestError: Two items share an id.
    """
    ids = [str(index) if item.id is None else item.id for index, item in enumerate(items)]
    if len(set(ids)) < len(ids):
        first = {item_id: index for index, item_id in reversed(list(enumerate(ids)))}
        index = next(i for i, item_id in enumerate(ids) if first[item_id] != i)
        path = f"items.{index}.id"
        raise InvalidRequestError(f"{path}: {ids[index]!r} is the id of item {first[ids[index]]} too", path=path)
    return ids


def to_text_item(item: ScoreItem) -> TextItem:
    """The inside of a wire item."""
    segments = {
        granularity: tuple(Span(start, end) for start, end in spans) for granularity, spans in item.segments.items()
    }
    return TextItem(item.prompt, item.response, item.fields, segments)


async def to_text_items(items: Sequence[ScoreItem]) -> list[TextItem]:
    """The insides of a request's items."""
    if not any(item.segments for item in items):
        return [to_text_item(item) for item in items]
    return await asyncio.to_thread(lambda: [to_text_item(item) for item in items])


async def to_reply(ids: Sequence[str], outcome: Outcome, request_id: str, *, return_logits: bool) -> bytes:
    """The wire's `ScoreReply` as JSON, in the request's order.

    It is written from plain values: to make the wire's models of them, and JSON of these, takes three times as long.
    """
    results: list[bytes] = []
    segments = 0
    for index, item_id in enumerate(ids):
        scores = {model.card.name: _score(model.card, model.results[index], return_logits) for model in outcome.models}
        results.append(to_json({"id": item_id, "scores": scores}))
        segments += sum(len(score["segments"] or ()) for score in scores.values())
        if segments >= PAUSE_SEGMENTS:
            segments = 0
            await asyncio.sleep(0)
    usage = {"input_tokens": outcome.input_tokens, "padded_tokens": outcome.padded_tokens}
    rest = to_json({"usage": usage, "request_id": request_id})
    return b'{"results":[' + b",".join(results) + b"]," + rest[1:]


def to_model_info(model: ServedModel) -> ModelInfo:
    """What is told of a served model."""
    return to_info(model.card, ModelState.READY if model.source.alive else ModelState.FAILED)


def to_info(card: ModelCard, state: ModelState) -> ModelInfo:
    """What is told of a model."""
    return ModelInfo(
        name=card.name,
        version=card.version,
        aliases=list(card.aliases),
        kind=card.head.kind,
        granularity=card.granularity,
        labels=list(card.head.verdicts),
        template=card.template,
        max_tokens=card.max_tokens,
        runtime=card.runtime,
        calibration=None
        if card.calibration is None
        else Calibration(mean=card.calibration[0], std=card.calibration[1]),
        digest=card.digest,
        state=state,
    )


def server_timing(outcome: Outcome) -> str:
    """The `Server-Timing` header: each stage in milliseconds."""
    durations_s = {"tokenize": outcome.tokenize_s, "queue": outcome.queue_s, "inference": outcome.inference_s}
    return ", ".join(f"{name};dur={seconds * 1000:.3f}" for name, seconds in durations_s.items())


def _score(card: ModelCard, result: ItemScore | ServiceError, return_logits: bool) -> dict[str, Any]:
    """The wire's `ModelScore`."""
    score: dict[str, Any] = {
        "model": card.name,
        "version": card.version,
        "runtime": card.runtime,
        "granularity": card.granularity,
        "segments": None,
        "sequence_score": None,
        "truncated_tokens": 0,
        "cached": False,
        "error": None,
    }
    if isinstance(result, ServiceError):
        score["error"] = {"code": result.code, "message": result.message, "retryable": result.code in RETRYABLE}
        return score
    score["segments"] = [
        {
            "start": scored.span.start,
            "end": scored.span.end,
            "score": _finite(scored.score),
            "label": scored.label,
            "logits": scored.logits if return_logits else None,
        }
        for scored in result.segments
    ]
    if result.sequence_score is not None:
        score["sequence_score"] = _finite(result.sequence_score)
    score["truncated_tokens"] = result.truncated_tokens
    score["cached"] = result.cached
    return score


def _finite(score: float) -> float:
    """A score, which JSON has to be able to tell."""
    if not isfinite(score):
        raise ValueError(f"a score is {score}")
    return score
