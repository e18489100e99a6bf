import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.core.scorer import Scorer
from reward_service.core.source import SourceOutcome
from reward_service.core.stages import Stage, recorded_stages
from reward_service.domain import Head, ItemScore, ModelCard, TextItem

HEAD = Head(ModelKind.SEQUENCE_REGRESSION)


class Told:
    """Answers at once, and says that it took some time."""

    alive = True

    def __init__(self, name: str, **durations_s: float) -> None:
        self.name = name
        self.cards = (ModelCard(name, "v", "v", (), HEAD, Granularity.SEQUENCE, "en", "", 9, "told"),)
        self._durations_s = durations_s

    async def score(self, items: Any, deadline_s: float | None, job: str = "") -> SourceOutcome:
        return SourceOutcome(((ItemScore((), 0.0),),) * len(items), **self._durations_s)


def record(*sources: Any, wanted: bool = True) -> list[Stage]:
    async def score() -> list[Stage]:
        stages: list[Stage] = []
        recorded_stages.set(stages if wanted else None)
        await Scorer(sources, ThreadPoolExecutor(1)).score([TextItem("", "Yes.")])
        return stages

    return asyncio.run(score())


def test_each_model_has_the_stages_that_took_it_time() -> None:
    stages = record(Told("a", tokenize_s=1e-9, queue_s=1e-9, inference_s=1e-9), Told("b", inference_s=1e-9), Told("c"))
    named = [(stage.model, stage.name) for stage in stages]
    assert named == [("a", "tokenize"), ("a", "queue"), ("a", "inference"), ("b", "inference")]


def test_the_last_batch_ends_with_the_answer_and_nothing_begins_before_the_question() -> None:
    tokenize, queue, inference = record(Told("a", tokenize_s=0.5, queue_s=1e6, inference_s=1e-7))
    assert tokenize.end_s - tokenize.begin_s == pytest.approx(0.5)
    assert queue.begin_s == tokenize.begin_s
    assert queue.end_s == inference.begin_s <= inference.end_s


def test_nothing_is_recorded_for_nobody() -> None:
    assert record(Told("a", inference_s=1.0), wanted=False) == []
