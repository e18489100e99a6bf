"""Is this reply the answer to what was asked? What is not raises `ReplyError`, so that no score is ever made up."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from reward_proto import Granularity, ItemResult, ModelScore, ScoreItem, ScoreReply, SegmentReply, SegmentScore
from rl_client.api.errors import ReplyError

_SHOWN_FAULTS = 3

ModelT = TypeVar("ModelT", bound=BaseModel)


class Pin(NamedTuple):
    """The version and runtime that a model's scores must come from; together they name the number."""

    version: str
    runtime: str | None = None


def parse_reply(kind: type[ModelT], content: bytes) -> ModelT:
    """Read a 2xx body.

    Raises:
        ReplyError: If it is not JSON of the contract. NaN and infinity are not.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        shown = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:_SHOWN_FAULTS])
        raise ReplyError(f"the reply is not a {kind.__name__} ({len(faults)} faults): {shown}") from error


def check_score_reply(
    reply: ScoreReply,
    items: Sequence[ScoreItem],
    names: frozenset[str] | None,
    pins: Mapping[str, Pin],
    *,
    return_logits: bool,
) -> None:
    """Check a reply against its request.

    Args:
        reply: What came.
        items: What was sent, each with its id.
        names: The models asked for; None if all were, and then every item must have the same ones.
        pins: Where the scores of some models must come from.
        return_logits: Whether logits were asked for.

    Raises:
        ReplyError: If anything differs from what was asked.
    """
    if len(reply.results) != len(items):
        raise ReplyError(f"asked for {len(items)} items, got {len(reply.results)} results")
    for item, result in zip(items, reply.results, strict=True):
        if result.id != item.id:
            raise ReplyError(f"expected the result of item {item.id!r}, got that of {result.id!r}")
        if names is None:
            names = frozenset(result.scores)
        if result.scores.keys() != names:
            raise ReplyError(f"item {item.id!r}: expected models {sorted(names)}, got {sorted(result.scores)}")
        if not names:
            raise ReplyError(f"item {item.id!r}: no model answered")
        _check_result(item, result, pins, return_logits)


def check_spans(spans: Sequence[tuple[int, int]], text: str, where: str) -> None:
    """Check that spans are non-empty, in order, apart from each other and inside the text.

    Raises:
        ReplyError: If they are not.
    """
    position = 0
    for start, end in spans:
        if not position <= start < end <= len(text):
            raise ReplyError(
                f"{where}: span [{start}, {end}) is empty, out of order or outside the text of {len(text)} code points"
            )
        position = end


def check_segment_reply(reply: SegmentReply, text: str, granularity: Granularity) -> None:
    """Check the reply to a segment request.

    Raises:
        ReplyError: If it has another granularity or impossible spans.
    """
    if reply.granularity != granularity:
        raise ReplyError(f"asked for {granularity} segments, got {reply.granularity}")
    check_spans(reply.segments, text, "segments")


def _check_result(item: ScoreItem, result: ItemResult, pins: Mapping[str, Pin], return_logits: bool) -> None:
    for name, score in result.scores.items():
        where = f"item {item.id!r}, model {name!r}"
        if score.model != name:
            raise ReplyError(f"{where}: the score is that of model {score.model!r}")
        if (score.segments is None) == (score.error is None):
            raise ReplyError(f"{where}: exactly one of segments and error must be null")
        if score.segments is None:
            continue
        if name in pins:
            _check_pin(score, pins[name], where)
        _check_segments(item, score, score.segments, where)
        if return_logits and any(segment.logits is None for segment in score.segments):
            raise ReplyError(f"{where}: logits were asked for and are null")


def _check_pin(score: ModelScore, pin: Pin, where: str) -> None:
    if score.version != pin.version:
        raise ReplyError(f"{where}: scored by version {score.version}, pinned is {pin.version}")
    if pin.runtime is not None and score.runtime != pin.runtime:
        raise ReplyError(f"{where}: scored on {score.runtime}, pinned is {pin.runtime}")


def _check_segments(item: ScoreItem, score: ModelScore, segments: Sequence[SegmentScore], where: str) -> None:
    spans = [(segment.start, segment.end) for segment in segments]
    check_spans(spans, item.response, where)
    if item.response.strip():
        if not segments:
            raise ReplyError(f"{where}: no segment for a response that is not blank")
        asked = item.segments.get(score.granularity)
        if asked is not None and spans != asked:
            raise ReplyError(f"{where}: scored segments {spans}, asked for {asked}")
    # Span models have nothing to score in a blank response; sequence models score it like any text.
    may_be_null = not segments and score.granularity is not Granularity.SEQUENCE
    if score.sequence_score is None and not may_be_null:
        raise ReplyError(f"{where}: the sequence score is null without an error")
    for segment in segments:
        if segment.label is not None and not 0.0 <= segment.score <= 1.0:
            raise ReplyError(f"{where}: a classifier's score {segment.score} is not in [0, 1]")
