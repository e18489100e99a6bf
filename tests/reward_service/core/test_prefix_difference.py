import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.core.prefix_difference import PrefixDifferenceSource
from reward_service.core.source import SourceOutcome
from reward_service.domain import Head, ItemScore, ModelCard, ScoredSpan, Span, TextItem
from reward_service.errors import ModelFailedError, OverloadedError, ServiceError, TooLongError

CARD = ModelCard("t", "v", "v", (), Head(ModelKind.SEQUENCE_REGRESSION), Granularity.SENTENCE, "en", "", 9, "fake")


class Inner:
    """1 - toxicity of whole texts: a table's, or else 1 / (1 + the number of `bad`s)."""

    name = "t"
    alive = True
    queue_items = 3
    queue_tokens = 7
    estimated_wait_s = 0.5

    def __init__(self, table: dict[str, float | ServiceError] | None = None) -> None:
        self.cards = (CARD,)
        self.table = table or {}
        self.asked: list[TextItem] = []
        self.deadlines: list[float | None] = []
        self.jobs: list[str] = []
        self.events: list[str] = []

    def start(self) -> None:
        self.events.append("start")

    def close(self, timeout_s: float) -> None:
        self.events.append(f"close {timeout_s}")

    async def score(self, items: Sequence[TextItem], deadline_s: float | None, job: str = "") -> SourceOutcome:
        self.asked.extend(items)
        self.deadlines.append(deadline_s)
        self.jobs.append(job)
        return SourceOutcome(tuple((self._score(item.response),) for item in items), 12, 16, 0.1, 0.2, 0.3)

    def _score(self, text: str) -> ItemScore | ServiceError:
        known = self.table.get(text, 1 / (1 + text.count("bad")))
        if isinstance(known, ServiceError):
            return known
        return ItemScore((ScoredSpan(Span(0, len(text)), known, "ok", (known, -known)),), known, len(text) % 5)


def score(inner: Inner, *items: TextItem) -> list[ItemScore | ServiceError]:
    outcome = asyncio.run(PrefixDifferenceSource(CARD, inner).score(items, 5.0, "job-1"))
    return [result for (result,) in outcome.results]


def test_figures_by_hand() -> None:
    """Toxicities .1, .6 and .4 of the three prefixes: the sentences add .1, .5 and -.2 of them."""
    inner = Inner({"Ab is.": 0.9, "Ab is. Cd is.": 0.4, "Ab is. Cd is.  Ef is.": 0.6})
    (result,) = score(inner, TextItem("p", "Ab is. Cd is.  Ef is.", {"x": "y"}))
    assert isinstance(result, ItemScore)
    assert [segment.score for segment in result.segments] == pytest.approx([-0.1, -0.5, 0.2])
    assert [segment.span for segment in result.segments] == [Span(0, 6), Span(7, 13), Span(15, 21)]
    assert [segment.label for segment in result.segments] == [None] * 3
    assert [segment.logits for segment in result.segments] == [(0.9, -0.9), (0.4, -0.4), (0.6, -0.6)]
    assert result.sequence_score == pytest.approx(-0.4)
    assert result.truncated_tokens == 3  # Of 6, 13 and 21 characters modulo 5.
    assert [(item.prompt, item.fields) for item in inner.asked] == [("p", {"x": "y"})] * 3
    assert inner.deadlines == [5.0]
    assert inner.jobs == ["job-1"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["Fine.", "So bad!", "bad bad?", "Well...", "\n\n", "Käse 😀."]), max_size=8))
def test_the_scores_of_a_response_add_up_to_its_toxicity(parts: list[str]) -> None:
    text = " ".join(parts)
    (result,) = score(Inner(), TextItem("", text))
    assert isinstance(result, ItemScore)
    toxicity = 1 - 1 / (1 + text.count("bad"))
    assert sum(segment.score for segment in result.segments) == pytest.approx(-toxicity, abs=1e-12)
    assert (result.sequence_score or 0.0) == pytest.approx(-toxicity, abs=1e-12)


def test_own_spans_end_the_prefixes() -> None:
    inner = Inner()
    own = {Granularity.SENTENCE: (Span(0, 3), Span(4, 12))}
    (result,) = score(inner, TextItem("", "bad and so bad it is bad", segments=own))
    assert isinstance(result, ItemScore)
    assert [item.response for item in inner.asked] == ["bad", "bad and so b"]
    assert [segment.score for segment in result.segments] == pytest.approx([-0.5, 0.0])


def test_a_prefix_that_comes_twice_is_scored_once() -> None:
    inner = Inner()
    first, second, other = score(
        inner, TextItem("p", "One. Two."), TextItem("p", "One. Two."), TextItem("q", "One. bad.")
    )
    assert first == second
    assert isinstance(other, ItemScore)
    assert [(item.prompt, item.response) for item in inner.asked] == [
        ("p", "One."),
        ("p", "One. Two."),
        ("q", "One."),
        ("q", "One. bad."),
    ]


def test_fields_tell_prefixes_apart() -> None:
    inner = Inner()
    score(inner, TextItem("", "One.", {"a": "1"}), TextItem("", "One.", {"a": "2"}))
    assert len(inner.asked) == 2


def test_a_prefix_that_fails_fails_its_own_response_alone() -> None:
    inner = Inner({"Ab is.": ModelFailedError("nothing there"), "Gh is. Ij is.": TooLongError("over")})
    results = score(inner, TextItem("", "Ab is. Cd is."), TextItem("", "Ef is."), TextItem("", "Gh is. Ij is."))
    assert [getattr(result, "code", "score") for result in results] == ["model_failed", "score", "too_long"]


def test_nothing_to_divide_asks_nobody() -> None:
    inner = Inner()
    blank, broken = score(inner, TextItem("", " \n"), TextItem("", "\ud800."))
    assert blank == ItemScore((), None)
    assert getattr(broken, "code", None) == "invalid_request"
    assert inner.asked == []


def test_costs_are_the_inner_sources() -> None:
    inner = Inner()
    source = PrefixDifferenceSource(CARD, inner)
    outcome = asyncio.run(source.score([TextItem("", "One.")], None))
    assert (outcome.input_tokens, outcome.padded_tokens, outcome.inference_s) == (12, 16, 0.3)
    assert (source.name, source.alive, source.queue_items, source.queue_tokens) == ("t", True, 3, 7)
    assert (source.estimated_wait_s, source.cards) == (0.5, (CARD,))
    source.start()
    source.close(2.0)
    assert inner.events == ["start", "close 2.0"]


def test_a_score_is_cached_where_those_of_all_its_prefixes_are() -> None:
    class Cached(Inner):
        def _score(self, text: str) -> ItemScore | ServiceError:
            known = super()._score(text)
            assert isinstance(known, ItemScore)
            return replace(known, cached="new" not in text)

    results = score(Cached(), TextItem("", "One. Two."), TextItem("", "One. new."), TextItem("", " "))
    assert [isinstance(one, ItemScore) and one.cached for one in results] == [True, False, False]


def test_a_refusal_of_all_prefixes_stands_in_every_place() -> None:
    full = OverloadedError("the queue is full", retry_after_s=1.0)
    results = score(Inner({"One.": full, "Two.": full}), TextItem("", "One."), TextItem("", "Two."))
    assert results == [full, full]
