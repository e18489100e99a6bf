"""What is read, on SQLite and PostgreSQL."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from reward_service.ledger.answer import Answer, Asker
from reward_service.ledger.database import Database
from reward_service.ledger.reader import Filters, Reading, sum_up
from reward_service.ledger.rows import make_rows

MINUTE_MS = 60_000
WHEN = {"a": 1, "b": 2, "c": 3, "d": 4}


@pytest.fixture
def filled(database: Database, make_answer: Callable[..., Answer]) -> Database:
    """Four requests of one item, minutes 1 to 4."""
    askers = [Asker("a", "one", "x", 1), Asker("b", "one", "x", 2), Asker("c", "two", "x", 2), Asker("d")]
    for seq, asker in reversed(list(enumerate(askers))):
        answer = make_answer(WHEN[asker.request_id] * MINUTE_MS, asker)
        database.write(make_rows(answer, 5, seq, texts=asker.request_id == "a"))
    return database


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (Filters(), "abcd"),
        (Filters(job="one"), "ab"),
        (Filters(job="two", run="x"), "c"),
        (Filters(run="y"), ""),
        (Filters(first_step=2), "bc"),
        (Filters(last_step=1), "a"),
        (Filters(first_step=1, last_step=2, job="one"), "ab"),
        (Filters(first_step=0), "abc"),
        (Filters(since_ms=2 * MINUTE_MS), "bcd"),
        (Filters(until_ms=2 * MINUTE_MS), "a"),
        (Filters(since_ms=2 * MINUTE_MS, until_ms=4 * MINUTE_MS), "bc"),
        (Filters(version="0" * 12), ""),
    ],
    ids=str,
)
def test_filters(filled: Database, filters: Filters, found: str) -> None:
    reading = Reading(filled, filters)
    models = ("length", "relevance")
    assert [(row["request_id"], row["model"]) for row in reading.rows()] == [(r, m) for r in found for m in models]
    assert reading.count() == 2 * len(found)


@pytest.mark.parametrize("filters", [Filters(model="length"), Filters(version="c07e55d8f419")])
def test_filters_of_scores(filled: Database, filters: Filters) -> None:
    reading = Reading(filled, filters)
    assert [(row["request_id"], row["model"]) for row in reading.rows()] == [(r, "length") for r in "abcd"]
    assert reading.count() == 4


def test_every_value(filled: Database) -> None:
    row = next(Reading(filled, Filters(model="relevance")).rows())
    digests = {name: row.pop(name) for name in ("prompt_digest", "response_digest", "item_digest")}
    assert all(len(digest) == 64 for digest in digests.values())
    assert row == {
        "scored_at": datetime(1970, 1, 1, 0, 1, tzinfo=UTC),
        "request_id": "a",
        "item_id": "0",
        "client_job": "one",
        "run": "x",
        "step": 1,
        "model": "relevance",
        "version": "3fa94c01d2be",
        "runtime": "fake-fp32",
        "granularity": "sentence",
        "sequence_score": 0.2,
        "segments": [
            {"start": 0, "end": 3, "score": 0.1, "label": "ok"},
            {"start": 4, "end": 11, "score": 1 / 3, "label": "bad"},
        ],
        "truncated_tokens": 5,
        "cached": False,
        "prompt": "Why?",
        "response": "So. Yes\x00 😀.",
        "fields": '{"context": "ä\\u0000"}',
    }


def test_texts_that_were_not_recorded_are_none(filled: Database) -> None:
    row = list(Reading(filled, Filters(model="length")).rows())[-1]
    assert (row["prompt"], row["response"], row["fields"]) == (None, None, None)
    assert (row["client_job"], row["run"], row["step"], row["cached"]) == (None, None, None, True)
    assert row["sequence_score"] == -1e-300


def test_sums(filled: Database) -> None:
    told = sum_up(filled)
    assert told.pop("bytes") == filled.size_bytes()
    assert told == {
        "items": 4,
        "scores": 8,
        "oldest": "1970-01-01T00:01:00+00:00",
        "newest": "1970-01-01T00:04:00+00:00",
        "models": [
            {"model": "length", "version": "c07e55d8f419", "runtime": "fake-int8", "scores": 4, "mean_score": -1e-300},
            {
                "model": "relevance",
                "version": "3fa94c01d2be",
                "runtime": "fake-fp32",
                "scores": 4,
                "mean_score": pytest.approx(0.2),
            },
        ],
        "runs": [
            {"client_job": None, "run": None, "items": 1, "first_step": None, "last_step": None},
            {"client_job": "one", "run": "x", "items": 2, "first_step": 1, "last_step": 2},
            {"client_job": "two", "run": "x", "items": 1, "first_step": 2, "last_step": 2},
        ],
    }


def test_nothing_sums_up_to_nothing(database: Database) -> None:
    empty = {"items": 0, "scores": 0, "bytes": 0, "oldest": None, "newest": None, "models": [], "runs": []}
    assert sum_up(database) == empty
    assert list(Reading(database, Filters()).rows()) == []
