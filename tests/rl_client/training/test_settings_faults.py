import pytest
from pydantic import ValidationError

from rl_client.training.settings_base import Count, Settings
from rl_client.training.settings_faults import describe, missing_paths


class Inner(Settings):
    steps: Count


class Outer(Settings):
    inner: Inner
    several: tuple[Inner, ...] = ()


def faults(raw) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(raw)
    return sorted(describe(caught.value))


def test_every_fault_is_told_with_its_place_and_none_twice():
    assert faults({"inner": {"steps": 0, "stesp": 1}, "several": [{"steps": 1}, {"steps": -1}], "more": 1}) == [
        "inner.steps: Input should be greater than 0",
        "inner.stesp: unknown setting",
        "more: unknown setting",
        "several.1.steps: Input should be greater than 0",
    ]


def test_what_is_read_and_not_there_is_named(tmp_path):
    (tmp_path / "there").touch()
    raw = {"policy": str(tmp_path / "there"), "prompts": "nowhere.jsonl", "data": {"train": "none.jsonl", "dev": None}}
    assert missing_paths(raw) == ["prompts: nowhere.jsonl does not exist", "data.train: none.jsonl does not exist"]
    assert missing_paths({"data": "not a mapping", "output": "made by the run"}) == []
