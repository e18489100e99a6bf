"""A scorer over two models on fake backends, whose work a test may hold."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.backends.fake_backend import FakeBackend
from reward_service.core.division import Division
from reward_service.core.encoder_source import EncoderSource
from reward_service.core.scorer import Scorer
from reward_service.core.token_queue import TokenQueue
from reward_service.core.worker import Entry, Worker
from reward_service.domain import Batch, Encoded, Head, ItemScore, ModelCard, Read, Span, TextItem
from reward_service.errors import MissingFieldError, ServiceError, TooLongError
from tests.reward_service.core.telemetry import Telemetry

SPAN_HEAD = Head(ModelKind.TOKEN_CLASSIFICATION, ("ok", "bad"), "ok")
SCALAR_HEAD = Head(ModelKind.SEQUENCE_REGRESSION)
MAX_TOKENS = 40
TIMEOUT_S = 20.0


class LengthEncoder:
    """One token a segment, whose id is the segment's number of characters; a field may be needed."""

    def __init__(self, kind: ModelKind, needs: str | None = None) -> None:
        self.kind = kind
        self.needs = needs

    def encode(self, item: TextItem, spans_by_head: Sequence[tuple[Span, ...]]) -> Encoded:
        if self.needs is not None and self.needs not in item.fields:
            raise MissingFieldError(f"no {self.needs}")
        spans = spans_by_head[0] or (Span(0, 0),)
        if len(spans) > MAX_TOKENS:
            raise TooLongError("too long")
        ids = np.array([span.end - span.start for span in spans], dtype=np.int64)
        is_span_model = self.kind is ModelKind.TOKEN_CLASSIFICATION
        return Encoded(ids, (Read(np.arange(len(ids) if is_span_model else 0, dtype=np.int64), spans),))


class Rig:
    """A scorer over a span model `fine` (sentences) and a scalar model `whole`, on fake backends."""

    def __init__(self, **limits: int) -> None:
        self.telemetry = Telemetry()
        self.release = threading.Event()
        self.entered = threading.Event()
        self.release.set()
        self.pool = ThreadPoolExecutor(2)
        self.limits = {"max_queue_items": 100, "max_queue_tokens": 1000, **limits}
        self.fine = self.make("fine", SPAN_HEAD, Granularity.SENTENCE, needs=None)
        self.whole = self.make("whole", SCALAR_HEAD, Granularity.SEQUENCE, needs="question")
        self.scorer = Scorer([self.fine, self.whole], self.pool)

    def make(self, name: str, head: Head, granularity: Granularity, needs: str | None) -> EncoderSource:
        queue: TokenQueue[Entry] = TokenQueue(
            max_items=self.limits["max_queue_items"],
            max_tokens=self.limits["max_queue_tokens"],
            max_batch_tokens=1000,
            max_padding=0.9,
        )
        worker = Worker(name, [Division(FakeBackend(head, before=self.hold))], [head], 0, queue, self.telemetry)
        worker.start()
        card = ModelCard(
            name=name,
            version="0123456789ab",
            digest="0123456789ab" + "0" * 52,
            aliases=("latest", "good"),
            head=head,
            granularity=granularity,
            language="en",
            template="",
            max_tokens=MAX_TOKENS,
            runtime="fake-fp32",
        )
        return EncoderSource(
            [card],
            LengthEncoder(head.kind, needs),
            worker,
            pool=self.pool,
            telemetry=self.telemetry,
        )

    def hold(self, _: Batch) -> None:
        self.entered.set()
        assert self.release.wait(TIMEOUT_S)

    async def until_busy(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, TIMEOUT_S)

    def close(self) -> None:
        self.release.set()
        self.scorer.close(TIMEOUT_S)


def text(response: str, question: str | None = "q", **more: Any) -> TextItem:
    return TextItem("", response, {} if question is None else {"question": question}, **more)


def codes(results: tuple[ItemScore | ServiceError, ...]) -> list[str]:
    return ["score" if isinstance(result, ItemScore) else result.code.value for result in results]
