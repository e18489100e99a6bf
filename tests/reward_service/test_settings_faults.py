"""Faults of a settings file as people read them."""

from typing import Any

import pytest
from pydantic import ValidationError

from reward_service.config import ServiceSettings
from reward_service.settings_faults import describe

STORE = {"store": "runs/store"}
SECRET = "sk-0123456789"


def told(**settings: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        ServiceSettings.model_validate({**STORE, "models": [{"name": "a"}], **settings})
    return describe(caught.value)


def test_each_fault_has_its_place() -> None:
    assert told(models=[{"name": "a", "runtme": "torch"}], prot=1, limits={"max_items": 0}) == [
        "models[0].runtme: unknown setting",
        "limits.max_items: Input should be greater than or equal to 1",
        "prot: unknown setting",
    ]
    assert told(models=[{"name": "a"}, {"name": "a"}]) == ["models: served twice: a"]
    assert told(models=[{"name": "a", "source": "nowhere"}]) == [
        "models[0].source: must be store, perspective, judge or callable"
    ]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"models": [{"name": "a@b@c"}]}, "models[0].name: must be name, name@alias or name@version"),
        ({"models": [{"name": "a", "device": "gpu"}]}, "models[0].device: must be cpu, cuda or cuda:N"),
        ({"tracing": {"endpoint": "collector"}}, "tracing.endpoint: must be a whole address, such as http://HOST:PORT"),
        (
            {"models": [{"source": "perspective", "name": "a", "key_env": SECRET}]},
            "models[0].key_env: must be the name of an environment variable",
        ),
        (
            {"models": [{"source": "callable", "name": "a", "kind": "classifier", "function": "score"}]},
            "models[0].function: must be module:function",
        ),
    ],
)
def test_what_breaks_a_pattern_is_told_what_was_meant_and_no_secret(settings: dict[str, Any], fault: str) -> None:
    faults = told(**settings)
    assert fault in faults
    assert SECRET not in str(faults)
