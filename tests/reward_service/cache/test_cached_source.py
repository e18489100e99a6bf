"""What is found in memory or on disk is what is computed."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reward_proto.score import Granularity
from reward_service.core.source import SourceOutcome
from reward_service.domain import Span, TextItem
from reward_service.errors import ModelFailedError
from tests.reward_service.cache.cached_items import A, B, C, Make, Run, flags, marked


def test_a_score_is_computed_once_and_marked_from_then_on(make_rig: Make, run: Run, scores_of: Any) -> None:
    rig = make_rig()
    first = run(rig.source.score([A, B], None))
    assert first.results == (scores_of(A), scores_of(B))
    assert (first.input_tokens, first.padded_tokens, first.inference_s) == (20, 32, 0.3)
    second = run(rig.source.score([B, C, A], None))
    assert second.results == (marked(scores_of(B), True), scores_of(C), marked(scores_of(A), True))
    assert (second.input_tokens, second.padded_tokens) == (10, 16)
    third = run(rig.source.score([A, A], None))
    assert third == SourceOutcome((marked(scores_of(A), True),) * 2)
    assert rig.inner.asked == [["Aa.", "Bb."], ["Cc."]]
    assert rig.telemetry.counts == (4, 3, 0)


def test_the_same_item_twice_in_a_request_is_computed_once(make_rig: Make, run: Run, scores_of: Any) -> None:
    rig = make_rig()
    outcome = run(rig.source.score([A, B, A, A], None))
    assert outcome.results == (scores_of(A), scores_of(B), scores_of(A), scores_of(A))
    assert rig.inner.asked == [["Aa.", "Bb."]]
    assert rig.telemetry.counts == (0, 2, 2)


def test_errors_are_not_kept(make_rig: Make, run: Run) -> None:
    rig = make_rig()
    items = [TextItem("", "failing"), TextItem("", "half"), A]
    for _ in range(2):
        failing, half, _ = run(rig.source.score(items, None)).results
        assert [type(one) for one in (*failing, half[1])] == [ModelFailedError] * 3
        assert not half[0].cached, "what one head says is not kept without the others'"
    assert rig.inner.asked == [["failing", "half", "Aa."], ["failing", "half"]]


def test_the_callers_deadline_and_job_go_on(make_rig: Make, run: Run) -> None:
    rig = make_rig()
    deadline_s = time.monotonic() + 20
    run(rig.source.score([A], deadline_s, "mine"))
    assert rig.inner.calls == [(deadline_s, "mine")]


def test_the_rest_is_the_inner_sources(make_rig: Make) -> None:
    rig = make_rig()
    source = rig.source
    assert (source.cards, source.name, source.alive, source.inner) == (rig.inner.cards, "inner", True, rig.inner)
    assert (source.queue_items, source.queue_tokens, source.estimated_wait_s) == (3, 7, 0.5)
    source.start()
    source.close(2.0)
    assert rig.inner.events == ["start", "close 2.0"]


def test_call_by_call_what_is_there_is_kept_when_the_caller_leaves(make_rig: Make, run: Run, scores_of: Any) -> None:
    rig = make_rig(items_per_call=1)

    async def scenario() -> SourceOutcome:
        await rig.source.score([A], None)
        rig.inner.gate.clear()
        task = asyncio.create_task(rig.source.score([A, B, C], None))
        await rig.until_asked(3)
        rig.inner.gate.set()
        while rig.cache.find(rig.source._keys.make(B), 2) is None:
            await asyncio.sleep(0)
        task.cancel()
        rig.inner.gate.clear()
        return await rig.source.score([B], None)

    assert run(scenario()).results == (marked(scores_of(B), True),)
    assert rig.inner.asked[:3] == [["Aa."], ["Bb."], ["Cc."]]


def test_the_disk_answers_after_a_restart_and_what_it_lacks_is_computed(
    make_rig: Make, run: Run, scores_of: Any, tmp_path: Path
) -> None:
    first = make_rig(path=tmp_path / "c.db")
    run(first.source.score([A, B], None))
    first.cache.close(20.0)
    rig = make_rig(path=tmp_path / "c.db")
    outcome = run(rig.source.score([A, C, A], None))
    assert outcome.results == (marked(scores_of(A), True), scores_of(C), marked(scores_of(A), True))
    assert (outcome.padded_tokens, rig.inner.asked) == (16, [["Cc."]])
    assert rig.telemetry.counts == (1, 1, 1)
    assert flags(run(rig.source.score([A], None))) == [True]
    assert rig.telemetry.events["found"] == 1, "the second time it is in memory"


def test_without_memory_the_disk_answers_alone(make_rig: Make, run: Run, tmp_path: Path) -> None:
    rig = make_rig(memory_bytes=0, path=tmp_path / "c.db")
    run(rig.source.score([A], None))
    assert rig.disk.flush(20.0)
    assert flags(run(rig.source.score([A], None))) == [True]
    assert rig.inner.asked == [["Aa."]]


def test_a_disk_that_dawdles_is_not_waited_for(
    make_rig: Make, run: Run, scores_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from concurrent.futures import Future

    rig = make_rig(path=tmp_path / "c.db")
    monkeypatch.setattr(rig.disk, "read", lambda keys: Future())
    assert run(rig.source.score([A], None)).results == (scores_of(A),)
    assert run(rig.source.score([B], time.monotonic() - 1)).results is not None
    assert rig.telemetry.events["late"] == 2


def test_a_row_that_passes_its_check_and_cannot_be_read_is_computed_anew(
    make_rig: Make, run: Run, scores_of: Any, tmp_path: Path
) -> None:
    rig = make_rig(path=tmp_path / "c.db")
    rig.disk.put(rig.source._keys.make(A), b"[]")
    assert rig.disk.flush(20.0)
    assert run(rig.source.score([A], None)).results == (scores_of(A),)
    assert run(rig.source.score([A], None)).results == (marked(scores_of(A), True),)


TEXTS = st.sampled_from(["", "Aa. Bb.", "failing", "full", "half", "wrong", "\ud800", "x"])
ITEMS = st.builds(
    TextItem,
    prompt=st.sampled_from(["", "p"]),
    response=TEXTS,
    fields=st.dictionaries(st.sampled_from("ab"), st.sampled_from("12"), max_size=2),
    segments=st.dictionaries(
        st.sampled_from([Granularity.SENTENCE, Granularity.PARAGRAPH]), st.just((Span(0, 1),)), max_size=1
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rounds=st.lists(st.lists(st.lists(ITEMS, min_size=1, max_size=4), min_size=1, max_size=3), max_size=4),
    memory_bytes=st.sampled_from([0, 700, 10**6]),
    on_disk=st.booleans(),
    items_per_call=st.sampled_from([None, 1, 2]),
)
def test_cached_and_computed_scores_are_the_same(
    make_rig: Make,
    run: Run,
    scores_of: Any,
    tmp_path_factory: pytest.TempPathFactory,
    rounds: list[list[list[TextItem]]],
    memory_bytes: int,
    on_disk: bool,
    items_per_call: int | None,
) -> None:
    """Rounds of requests at a time, of random items: whatever is found or shared, it is what is computed."""
    path = tmp_path_factory.mktemp("c") / "c.db" if on_disk else None
    rig = make_rig(memory_bytes, path, items_per_call)

    async def together(requests: list[list[TextItem]]) -> list[SourceOutcome]:
        return list(await asyncio.gather(*(rig.source.score(items, None) for items in requests)))

    asked = 0
    for requests in rounds:
        for items, outcome in zip(requests, run(together(requests)), strict=True):
            asked += len(items)
            expected = [marked(scores_of(item), False) for item in items]
            assert [marked(results, False) for results in outcome.results] == expected
    assert sum(rig.telemetry.counts) == asked
    assert not rig.source._in_flight._works
    rig.cache.close(20.0)
