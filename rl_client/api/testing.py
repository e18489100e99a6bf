"""A stand-in for the reward service, for tests of programs that use the client: no network, the same contract.

    service = FakeRewardService([FakeModel("politeness", score=lambda text: float("please" in text))])
    with RewardClient("http://reward", transport=service.transport) as client:
        ...

Replies are built from the contract's own models, so what it sends is what a service may send. Failures are scripted
with `fail_next` (whole requests) and `fail_scores` (single scores).
"""

import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx
from pydantic import BaseModel, ValidationError

from reward_proto import (
    HTTP_STATUS,
    RETRY_AFTER,
    RETRYABLE,
    Calibration,
    ErrorBody,
    ErrorCode,
    ErrorReply,
    Granularity,
    ItemResult,
    ModelInfo,
    ModelKind,
    ModelList,
    ModelScore,
    ModelState,
    ScoreError,
    ScoreItem,
    ScoreReply,
    ScoreRequest,
    SegmentReply,
    SegmentRequest,
    SegmentScore,
    Usage,
)
from rl_client.api.endpoints import MODELS_PATH, READY_PATH, SEGMENT_PATH
from rl_client.api.scoring import SCORE_PATH

_SPLIT_AFTER = {
    Granularity.SUB_SENTENCE: re.compile(r"(?<=[.!?,;])\s+"),
    Granularity.SENTENCE: re.compile(r"(?<=[.!?])\s+"),
    Granularity.PARAGRAPH: re.compile(r"\n\s*\n"),
}
LABELS = ("error", "ok")
OK_THRESHOLD = 0.5


@dataclass(frozen=True)
class FakeModel:
    """A reward model whose scores are given by a function of the segment's text.

    Attributes:
        name: What requests call it.
        score: From a segment's text to its score; in [0, 1] for a classifier.
        granularity: What its segments are, found by a simple rule.
        kind: A classifier's label is `ok` from a score of 0.5 on.
        version: What replies and pins carry.
        runtime: What replies and pins carry.
        calibration: Statistics that `/v1/models` reports.
    """

    name: str
    score: Callable[[str], float]
    granularity: Granularity = Granularity.SEQUENCE
    kind: ModelKind = ModelKind.SEQUENCE_REGRESSION
    version: str = "000000000000"
    runtime: str = "fake-fp32"
    calibration: Calibration | None = None

    def score_segments(self, item: ScoreItem, return_logits: bool) -> list[SegmentScore]:
        """One score for each segment of the response."""
        segments = []
        for start, end in item.segments.get(self.granularity) or split_text(item.response, self.granularity):
            score = self.score(item.response[start:end])
            label = LABELS[score >= OK_THRESHOLD] if self.kind.is_classifier else None
            logits = [score] if return_logits else None
            segments.append(SegmentScore(start=start, end=end, score=score, label=label, logits=logits))
        return segments

    @property
    def info(self) -> ModelInfo:
        """What `/v1/models` says of it."""
        return ModelInfo(
            name=self.name,
            version=self.version,
            aliases=["latest"],
            kind=self.kind,
            granularity=self.granularity,
            labels=list(LABELS) if self.kind.is_classifier else [],
            template="{prompt}",
            max_tokens=1 << 20,
            runtime=self.runtime,
            calibration=self.calibration,
            digest=self.version,
            state=ModelState.READY,
        )


def split_text(text: str, granularity: Granularity) -> list[tuple[int, int]]:
    """Trimmed, non-blank spans that cover the text, cut after punctuation or blank lines; cruder than the service's."""
    if granularity is Granularity.SEQUENCE:
        pieces = [(0, len(text))]
    else:
        cuts = [match.end() for match in _SPLIT_AFTER[granularity].finditer(text)]
        pieces = list(zip([0, *cuts], [*cuts, len(text)], strict=True))
    spans = []
    for start, end in pieces:
        piece = text[start:end]
        if piece.strip():
            left = start + len(piece) - len(piece.lstrip())
            spans.append((left, left + len(piece.strip())))
    return spans


class FakeRewardService:
    """Answers `/v1/score`, `/v1/models`, `/v1/segment` and `/readyz` from memory.

    Attributes:
        models: The served models by name; may be changed in mid-run, as a hot reload would.
        requests: Every score request that could be read, in order.
        headers: The headers of every score request, failed ones included.
        transport: Pass it to `RewardClient` or `AsyncRewardClient`.
        retry_after_s: The Retry-After of scripted errors that carry one.
    """

    def __init__(self, models: Sequence[FakeModel]) -> None:
        self.models = {model.name: model for model in models}
        self.requests: list[ScoreRequest] = []
        self.headers: list[httpx.Headers] = []
        self.transport = httpx.MockTransport(self._answer)
        self._failures: deque[ErrorCode | Exception | httpx.Response] = deque()
        self._score_failures: Counter[tuple[str, str | None, ErrorCode]] = Counter()
        self._lock = threading.Lock()
        self.retry_after_s = 0.0

    def fail_next(self, *failures: ErrorCode | Exception | httpx.Response) -> None:
        """Answer the next score requests with these, one each: an error reply, an exception of httpx, any response."""
        self._failures.extend(failures)

    def fail_scores(self, model: str, code: ErrorCode, *, item_id: str | None = None, times: int = 1) -> None:
        """Give an error in place of the next `times` scores of a model, for one item or for any."""
        self._score_failures[model, item_id, code] += times

    def _answer(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            if request.url.path == SCORE_PATH:
                return self._score(request)
            if request.url.path == SEGMENT_PATH:
                return self._segment(request)
            if request.url.path == READY_PATH:
                return httpx.Response(200)
            if request.url.path == MODELS_PATH:
                return _reply(ModelList(models=[model.info for model in self.models.values()]))
            name = request.url.path.removeprefix(f"{MODELS_PATH}/")
            if name not in self.models:
                return self._error(ErrorCode.UNKNOWN_MODEL, request)
            return _reply(self.models[name].info)

    def _score(self, request: httpx.Request) -> httpx.Response:
        self.headers.append(request.headers)
        if self._failures:
            failure = self._failures.popleft()
            if isinstance(failure, Exception):
                raise failure
            return failure if isinstance(failure, httpx.Response) else self._error(failure, request)
        try:
            asked = ScoreRequest.model_validate_json(request.content)
        except ValidationError:
            return self._error(ErrorCode.INVALID_REQUEST, request)
        ids = [item.id if item.id is not None else str(index) for index, item in enumerate(asked.items)]
        if len(set(ids)) < len(ids):
            return self._error(ErrorCode.INVALID_REQUEST, request)
        models = [self._find(reference) for reference in asked.models or self.models]
        if None in models or not models:
            return self._error(ErrorCode.UNKNOWN_MODEL, request)
        self.requests.append(asked)
        results = [
            ItemResult(
                id=item_id,
                scores={model.name: self._score_item(model, item, asked.return_logits) for model in models if model},
            )
            for item_id, item in zip(ids, asked.items, strict=True)
        ]
        errors = [score.error for result in results for score in result.scores.values()]
        codes = {error.code if error else None for error in errors}
        if len(codes) == 1 and (code := codes.pop()):
            return self._error(code, request)
        tokens = sum(len(item.response.split()) for item in asked.items)
        usage = Usage(input_tokens=tokens, padded_tokens=tokens)
        return _reply(ScoreReply(results=results, usage=usage, request_id=_request_id(request)))

    def _find(self, reference: str) -> FakeModel | None:
        name, _, suffix = reference.partition("@")
        model = self.models.get(name)
        return model if model is not None and suffix in ("", "latest", model.version) else None

    def _score_item(self, model: FakeModel, item: ScoreItem, return_logits: bool) -> ModelScore:
        error = self._take_failure(model.name, item.id)
        segments = [] if error else model.score_segments(item, return_logits)
        sequence_score = sum(segment.score for segment in segments) / len(segments) if segments else None
        if not error and not segments and model.granularity is Granularity.SEQUENCE:
            sequence_score = model.score(item.response)
        return ModelScore(
            model=model.name,
            version=model.version,
            runtime=model.runtime,
            granularity=model.granularity,
            segments=None if error else segments,
            sequence_score=sequence_score,
            error=error,
        )

    def _take_failure(self, model: str, item_id: str | None) -> ScoreError | None:
        for key in self._score_failures:
            name, wanted_id, code = key
            if name == model and wanted_id in (None, item_id) and self._score_failures[key] > 0:
                self._score_failures[key] -= 1
                return ScoreError(code=code, message="scripted", retryable=code in RETRYABLE)
        return None

    def _segment(self, request: httpx.Request) -> httpx.Response:
        asked = SegmentRequest.model_validate_json(request.content)
        segments = split_text(asked.text, asked.granularity)
        return _reply(SegmentReply(granularity=asked.granularity, segmenter="fake", segments=segments))

    def _error(self, code: ErrorCode, request: httpx.Request) -> httpx.Response:
        body = ErrorBody(code=code, message="scripted", retryable=code in RETRYABLE, request_id=_request_id(request))
        headers = {"Retry-After": str(self.retry_after_s)} if code in RETRY_AFTER else {}
        return _reply(ErrorReply(error=body), HTTP_STATUS[code], headers)


def _request_id(request: httpx.Request) -> str:
    return str(request.headers["x-request-id"])


def _reply(body: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, content=body.model_dump_json().encode(), headers=headers)
