"""The rows of an answer, value for value."""

import hashlib
import json
from collections.abc import Callable

import pytest

from reward_service.ledger.answer import Answer, Asker
from reward_service.ledger.rows import ROW_BYTES, Rows, decode_segments, make_rows

KEY = {"time_ms": 60_000, "writer": 5, "seq": 9}
# Written by hand: every key sorted, no white space, NUL escaped, everything else as it is.
ITEM_JSON = r'{"fields":{"context":"ä\u0000"},"prompt":"Why?","response":"So. Yes\u0000 😀.","segments":{}}'


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_every_value(make_answer: Callable[..., Answer]) -> None:
    rows = make_rows(make_answer(), 5, 9, texts=False)
    assert rows.items == [
        {
            **KEY,
            "request_id": "request-1",
            "item_id": "0",
            "client_job": "job",
            "run": "run",
            "step": 7,
            "prompt_digest": sha256("Why?"),
            "response_digest": sha256("So. Yes\x00 😀."),
            "item_digest": sha256(ITEM_JSON),
            "texts": None,
        }
    ]
    assert rows.scores == [
        {
            **KEY,
            "model": "relevance",
            "version": "3fa94c01d2be",
            "runtime": "fake-fp32",
            "granularity": "sentence",
            "sequence_score": 0.2,
            "segments": '[[0,3,0.1,"ok"],[4,11,0.3333333333333333,"bad"]]',
            "truncated_tokens": 5,
            "cached": False,
        },
        {
            **KEY,
            "model": "length",
            "version": "c07e55d8f419",
            "runtime": "fake-int8",
            "granularity": "sequence",
            "sequence_score": -1e-300,
            "segments": "[[0,11,-1e-300,null]]",
            "truncated_tokens": 0,
            "cached": True,
        },
    ]


def test_texts_where_they_are_allowed(make_answer: Callable[..., Answer]) -> None:
    (item,) = make_rows(make_answer(), 5, 9, texts=True).items
    assert "\x00" not in item["texts"]
    assert json.loads(item["texts"]) == {
        "prompt": "Why?",
        "response": "So. Yes\x00 😀.",
        "fields": {"context": "ä\x00"},
    }


def test_an_error_is_no_row_and_an_item_without_scores_none_either(half_failed: Answer) -> None:
    rows = make_rows(half_failed, 5, 9, texts=False)
    assert [(row["item_id"], row["seq"]) for row in rows.items] == [("a", 9), ("c", 11)]
    found = [(row["seq"], row["model"], row["sequence_score"], row["segments"]) for row in rows.scores]
    whole = "[[0,11,-1e-300,null]]"
    assert found == [(9, "length", -1e-300, whole), (11, "relevance", None, "[]"), (11, "length", -1e-300, whole)]


def test_who_names_no_job_or_run_has_none(make_answer: Callable[..., Answer]) -> None:
    (item,) = make_rows(make_answer(asker=Asker("r\x001")), 5, 9, texts=False).items
    assert (item["request_id"], item["client_job"], item["run"], item["step"]) == ("r\ufffd1", None, None, None)


def test_sums_by_minute(make_answer: Callable[..., Answer]) -> None:
    rows = Rows()
    for seq, (time_ms, items) in enumerate([(119_999, 2), (60_000, 1), (120_000, 1)]):
        rows.add(make_rows(make_answer(time_ms, items=items), 5, 10 * seq, texts=False))
    # request-1, 0, job, run and three digests; the names, versions, runtimes, granularities and segments of two scores.
    item = ROW_BYTES + 9 + 1 + 3 + 3 + 3 * 64
    scores = 2 * ROW_BYTES + (9 + 12 + 9 + 8 + 48) + (6 + 12 + 9 + 8 + 21)
    assert rows.by_minute() == [
        {"minute": 1, "items": 3, "scores": 6, "bytes": 3 * (item + scores)},
        {"minute": 2, "items": 1, "scores": 2, "bytes": item + scores},
    ]


@pytest.mark.parametrize("score", [0.1, 1 / 3, -0.0, 5e-324, 1.7976931348623157e308, 1e22])
def test_scores_survive_to_the_bit(score: float) -> None:
    from pydantic_core import to_json

    (segment,) = decode_segments(to_json([(0, 1, score, "a")]).decode())
    assert segment == {"start": 0, "end": 1, "score": score, "label": "a"}
    assert segment["score"].hex() == score.hex()
