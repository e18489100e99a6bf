from typing import Any

import pytest

from reward_proto import Granularity, ScoreItem, ScoreReply, SegmentReply
from rl_client.api.errors import ReplyError
from rl_client.api.reply_check import Pin, check_score_reply, check_segment_reply, parse_reply

ITEMS = [ScoreItem(id="a", response="Yes. No."), ScoreItem(id="b", response="👍!")]


def score(spans: list[tuple[int, int, float]], **changes: Any) -> dict[str, Any]:
    return {
        "model": "relevance",
        "version": "v1",
        "runtime": "cpu",
        "granularity": "sentence",
        "segments": [{"start": s, "end": e, "score": x, "label": "ok", "logits": [0.0]} for s, e, x in spans],
        "sequence_score": 0.5,
        **changes,
    }


def reply(a: dict[str, Any] | None = None, b: dict[str, Any] | None = None) -> dict[str, Any]:
    scores = [a or score([(0, 4, 0.9), (5, 8, 0.1)]), b or score([(0, 2, 0.5)])]
    results = [{"id": id, "scores": {"relevance": s}} for id, s in zip("ab", scores, strict=True)]
    return {"results": results, "usage": {"input_tokens": 1, "padded_tokens": 1}, "request_id": "r"}


def check(body: dict[str, Any], items: list[ScoreItem] = ITEMS, **options: Any) -> None:
    settings: dict[str, Any] = {"names": frozenset({"relevance"}), "pins": {}, "return_logits": False, **options}
    check_score_reply(ScoreReply.model_validate(body), items, **settings)


def test_a_good_reply_passes() -> None:
    check(reply())
    check(reply(), names=None)
    check(reply(), pins={"relevance": Pin("v1", "cpu"), "other": Pin("v9")}, return_logits=True)


def test_an_error_in_place_of_a_score_passes() -> None:
    error = {"code": "too_long", "message": "m", "retryable": False}
    check(reply(b=score([], segments=None, sequence_score=None, error=error)))


def swapped(body: dict[str, Any]) -> None:
    body["results"].reverse()


def one_missing(body: dict[str, Any]) -> None:
    body["results"].pop()


def one_too_many(body: dict[str, Any]) -> None:
    body["results"].append(body["results"][0])


def duplicate(body: dict[str, Any]) -> None:
    body["results"][1] = body["results"][0]


def of_another_request(body: dict[str, Any]) -> None:
    body["results"][0]["id"] = "z"


def no_model(body: dict[str, Any]) -> None:
    body["results"][1]["scores"] = {}


def another_model(body: dict[str, Any]) -> None:
    body["results"][1]["scores"]["toxicity"] = body["results"][1]["scores"]["relevance"]


def model_under_a_wrong_name(body: dict[str, Any]) -> None:
    body["results"][0]["scores"]["relevance"]["model"] = "factuality"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (swapped, "expected the result of item 'a', got that of 'b'"),
        (one_missing, "asked for 2 items, got 1"),
        (one_too_many, "asked for 2 items, got 3"),
        (duplicate, "expected the result of item 'b', got that of 'a'"),
        (of_another_request, "got that of 'z'"),
        (no_model, r"item 'b': expected models \['relevance'\], got \[\]"),
        (another_model, r"item 'b': expected models \['relevance'\], got \['relevance', 'toxicity'\]"),
        (model_under_a_wrong_name, "is that of model 'factuality'"),
    ],
)
@pytest.mark.parametrize("names", [frozenset({"relevance"}), None])
def test_results_that_are_not_the_ones_asked_for(damage: Any, says: str, names: frozenset[str] | None) -> None:
    body = reply()
    damage(body)
    with pytest.raises(ReplyError, match=says):
        check(body, names=names)


def test_no_model_at_all() -> None:
    body = reply()
    for result in body["results"]:
        result["scores"] = {}
    with pytest.raises(ReplyError, match="no model answered"):
        check(body, names=None)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"segments": None}, "exactly one of segments and error"),
        ({"error": {"code": "internal", "message": "m", "retryable": True}}, "exactly one of segments and error"),
        ({"segments": [], "sequence_score": None}, "no segment for a response that is not blank"),
        ({"sequence_score": None}, "null without an error"),
    ],
)
def test_a_score_that_is_neither_given_nor_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ReplyError, match=rf"item 'a', model 'relevance'.*{says}"):
        check(reply(a=score([(0, 8, 0.5)], **changes)))


@pytest.mark.parametrize(
    "spans",
    [
        [(0, 9, 0.5)],  # past the response
        [(0, 4, 0.5), (3, 8, 0.5)],  # overlapping
        [(5, 8, 0.5), (0, 4, 0.5)],  # out of order
        [(4, 4, 0.5)],  # empty
        [(5, 2, 0.5)],  # backwards
        [(-1, 4, 0.5)],
    ],
)
def test_impossible_spans(spans: list[tuple[int, int, float]]) -> None:
    with pytest.raises(ReplyError, match="empty, out of order or outside the text of 8 code points"):
        check(reply(a=score(spans)))


def test_spans_count_code_points_not_utf16_or_bytes() -> None:
    check(reply(b=score([(0, 2, 0.5)])))
    with pytest.raises(ReplyError, match="outside the text of 2 code points"):
        check(reply(b=score([(0, 3, 0.5)])))


def test_the_callers_own_spans_are_the_ones_scored() -> None:
    items = [ScoreItem(id="a", response="Yes. No.", segments={Granularity.SENTENCE: [(0, 8)]}), ITEMS[1]]
    check(reply(a=score([(0, 8, 0.5)])), items)
    with pytest.raises(ReplyError, match=r"scored segments .* asked for \[\(0, 8\)\]"):
        check(reply(), items)


def test_a_classifiers_score_is_a_probability() -> None:
    with pytest.raises(ReplyError, match=r"1.5 is not in \[0, 1\]"):
        check(reply(a=score([(0, 8, 1.5)])))


def test_a_blank_response() -> None:
    items = [ScoreItem(id="a", response=" \n"), ITEMS[1]]
    check(reply(a=score([], sequence_score=None)), items)
    check(reply(a=score([], sequence_score=-3.5, granularity="sequence")), items)
    with pytest.raises(ReplyError, match="null without an error"):
        check(reply(a=score([], sequence_score=None, granularity="sequence")), items)


@pytest.mark.parametrize(
    ("pin", "says"),
    [(Pin("v2", "cpu"), "scored by version v1, pinned is v2"), (Pin("v1", "gpu"), "scored on cpu, pinned is gpu")],
)
def test_scores_from_elsewhere_than_the_pin(pin: Pin, says: str) -> None:
    with pytest.raises(ReplyError, match=says):
        check(reply(), pins={"relevance": pin})


def test_a_pin_of_any_runtime() -> None:
    check(reply(), pins={"relevance": Pin("v1")})


def test_logits_that_were_asked_for() -> None:
    body = reply()
    body["results"][1]["scores"]["relevance"]["segments"][0]["logits"] = None
    check(body)
    with pytest.raises(ReplyError, match=r"item 'b'.*logits were asked for"):
        check(body, return_logits=True)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "null", '"high"'])
@pytest.mark.parametrize("field", ["score", "sequence_score"])
def test_what_is_no_number_is_no_score(field: str, number: str) -> None:
    content = ScoreReply.model_validate(reply()).model_dump_json()
    known = '"score":0.9' if field == "score" else '"sequence_score":0.5'
    assert known in content
    damaged = content.replace(known, f'"{field}":{number}', 1)
    if (field, number) == ("sequence_score", "null"):
        with pytest.raises(ReplyError):
            check(parse_reply(ScoreReply, damaged.encode()).model_dump())
        return
    with pytest.raises(ReplyError, match=f"results.0.*{field}"):
        parse_reply(ScoreReply, damaged.encode())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"<html>", b'{"results": []}', b"\xff\xfe"])
def test_what_is_no_reply_of_the_contract(content: bytes) -> None:
    with pytest.raises(ReplyError, match="not a ScoreReply"):
        parse_reply(ScoreReply, content)


def test_a_newer_services_extra_fields_are_ignored() -> None:
    assert parse_reply(SegmentReply, b'{"granularity":"sentence","segmenter":"s","segments":[[0,1]],"new":1}').segments


def test_segment_replies() -> None:
    good = SegmentReply(granularity=Granularity.SENTENCE, segmenter="s", segments=[(0, 4), (5, 8)])
    check_segment_reply(good, "Yes. No.", Granularity.SENTENCE)
    with pytest.raises(ReplyError, match="asked for paragraph segments, got sentence"):
        check_segment_reply(good, "Yes. No.", Granularity.PARAGRAPH)
    with pytest.raises(ReplyError, match="outside the text"):
        check_segment_reply(good, "Yes.", Granularity.SENTENCE)
