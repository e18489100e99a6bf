from typing import Any

import pytest
from pydantic import ValidationError

from reward_service.compat_settings import Compat
from reward_service.web.compat.combine import Rewards
from reward_service.web.compat.tei import PredictRequest, to_reply, to_samples
from reward_service.web.compat.texts import Sample

A, AB = Sample("", "a"), Sample("a", "b")


@pytest.mark.parametrize(
    ("inputs", "samples", "is_batch"),
    [
        ("a", [A], False),
        (["a"], [A], False),
        (["a", "b"], [AB], False),
        ([["a"]], [A], True),
        ([["a"], ["a", "b"]], [A, AB], True),
        ([["a", "b"], ["a", "b"], ["a"]], [AB, AB, A], True),
    ],
)
def test_a_bare_pair_is_one_input(inputs: Any, samples: list[Sample], is_batch: bool) -> None:
    wanted = PredictRequest.model_validate({"inputs": inputs}, strict=True)
    assert to_samples(wanted, Compat()) == samples
    reply = to_reply(wanted, Rewards([0.5] * len(samples), {}))
    assert isinstance(reply[0], list) is is_batch
    assert len(reply) == (len(samples) if is_batch else 1)


@pytest.mark.parametrize("inputs", [[], [[]], ["a", "b", "c"], [["a", "b", "c"]], ["a", ["b"]], [["a"], "b"], 1, None])
def test_what_tei_refuses_is_refused(inputs: Any) -> None:
    with pytest.raises(ValidationError):
        PredictRequest.model_validate({"inputs": inputs}, strict=True)
