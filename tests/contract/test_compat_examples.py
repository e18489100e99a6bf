"""The golden examples of the protocols of existing trainers: the real app gives exactly these replies."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reward_service.compat_settings import Compat

EXAMPLES = Path(__file__).parents[2] / "proto" / "examples" / "compat"
PATHS = {"/get_reward", "/classify", "/predict", "/rm", "/v1/rewards"}


def examples() -> list[Any]:
    return [
        pytest.param(json.loads(path.read_text(encoding="utf-8")), id=path.stem)
        for path in sorted(EXAMPLES.glob("*.json"))
    ]


def assert_same(given: Any, golden: Any) -> None:
    """Equal, but for the last digits of floats."""
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


@pytest.mark.parametrize("example", examples())
def test_the_app_gives_this_reply(example: dict[str, Any], make_service: Callable[..., Any]) -> None:
    service = make_service(compat=Compat.model_validate(example["settings"]))
    reply = service.request("POST", example["path"], json=example["request"], headers={"X-Request-Id": "r1"})
    assert reply.status_code == example["status"], reply.text
    given = reply.json()
    if isinstance(given, dict) and "created" in given:
        assert given["created"] > 1_700_000_000
        given["created"] = 0
    assert_same(given, example["reply"])


def test_each_protocol_has_an_example_of_success_and_of_failure() -> None:
    pairs = {(example["path"], example["status"]) for (example,) in (param.values for param in examples())}
    assert pairs >= {(path, 200) for path in PATHS}
    assert pairs >= {(path, 422) for path in PATHS}
