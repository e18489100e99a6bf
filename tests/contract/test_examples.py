"""The golden examples: both sides read them, and the real app gives exactly these replies."""

import json
from pathlib import Path
from typing import Any

import pytest

from reward_proto import (
    HTTP_STATUS,
    RETRY_AFTER,
    RETRYABLE,
    ErrorCode,
    ErrorReply,
    ModelList,
    ScoreReply,
    ScoreRequest,
    SegmentReply,
)

EXAMPLES = Path(__file__).parents[2] / "proto" / "examples"


def examples(pattern: str) -> list[Any]:
    found = sorted(EXAMPLES.glob(pattern))
    assert found
    return [pytest.param(json.loads(path.read_text(encoding="utf-8")), id=path.stem) for path in found]


def assert_same(given: Any, golden: Any) -> None:
    """Equal, but for the last digits of floats, which may differ from one CPU to the next."""
    assert type(given) is type(golden)
    if isinstance(golden, dict):
        assert list(given) == list(golden)
        for key in golden:
            assert_same(given[key], golden[key])
    elif isinstance(golden, list):
        assert len(given) == len(golden)
        for one, other in zip(given, golden, strict=True):
            assert_same(one, other)
    elif isinstance(golden, float):
        assert given == pytest.approx(golden, abs=1e-7)
    else:
        assert given == golden


@pytest.mark.parametrize("example", examples("score_*.json"))
def test_score(example: dict[str, Any], service: Any) -> None:
    reply = service.score(example["request"], headers={"X-Request-Id": example["reply"]["request_id"]})
    assert reply.status_code == 200
    assert_same(reply.json(), example["reply"])


@pytest.mark.parametrize("example", examples("score_*.json"))
def test_score_examples_survive_the_contracts_models(example: dict[str, Any]) -> None:
    request = ScoreRequest.model_validate_json(json.dumps(example["request"]), strict=True)
    assert request.model_dump(mode="json", exclude_unset=True) == example["request"]
    reply = ScoreReply.model_validate_json(json.dumps(example["reply"]))
    assert reply.model_dump(mode="json") == example["reply"]
    for result, item in zip(reply.results, request.items, strict=True):
        for score in result.scores.values():
            assert (score.segments is None) == (score.error is not None)
            for segment in score.segments or []:
                assert item.response[segment.start : segment.end].strip()


def test_segment(service: Any) -> None:
    (example,) = (parameter.values[0] for parameter in examples("segment.json"))
    reply = service.request("POST", "/v1/segment", json=example["request"])
    assert reply.json() == example["reply"]
    assert SegmentReply.model_validate_json(reply.content).model_dump(mode="json") == example["reply"]


def test_models(service: Any) -> None:
    (example,) = (parameter.values[0] for parameter in examples("models.json"))
    reply = service.request("GET", "/v1/models")
    assert reply.json() == example["reply"]
    assert ModelList.model_validate_json(reply.content).model_dump(mode="json") == example["reply"]
    first = example["reply"]["models"][0]
    for reference in (first["name"], f"{first['name']}@latest", f"{first['name']}@{first['version']}"):
        assert service.request("GET", f"/v1/models/{reference}").json() == first


@pytest.mark.parametrize("example", examples("error_*.json"))
def test_error_examples_agree_with_the_contract(example: dict[str, Any]) -> None:
    error = ErrorReply.model_validate_json(json.dumps(example["reply"])).error
    assert ErrorReply(error=error).model_dump(mode="json") == example["reply"]
    assert example["status"] == HTTP_STATUS[error.code]
    assert error.retryable == (error.code in RETRYABLE)
    assert ("Retry-After" in example["headers"]) == (error.code in RETRY_AFTER)


def test_each_error_code_has_an_example() -> None:
    assert {path.stem for path in EXAMPLES.glob("error_*.json")} == {f"error_{code}" for code in ErrorCode}


@pytest.mark.parametrize("example", examples("invalid_*.json"))
def test_invalid_bodies_are_refused_in_the_one_shape(example: dict[str, Any], service: Any) -> None:
    reply = service.request("POST", example["endpoint"], content=example["body"])
    assert reply.status_code == 422
    error = ErrorReply.model_validate_json(reply.content).error
    assert error.code is ErrorCode.INVALID_REQUEST
    assert not error.retryable
    assert error.request_id == reply.headers["X-Request-Id"]
    paths = [error.details["path"]] if "path" in error.details else [e["path"] for e in error.details["errors"]]
    assert example["path"] in paths
    assert error.message.startswith(example["path"])
