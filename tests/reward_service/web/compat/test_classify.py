import pytest
from pydantic import ValidationError

from reward_service.compat_settings import Compat
from reward_service.web.compat.classify import ClassifyRequest, to_reply, to_samples
from reward_service.web.compat.combine import Rewards
from reward_service.web.compat.texts import Sample


def test_one_text_or_several() -> None:
    assert to_samples(ClassifyRequest(input="ab"), Compat()) == [Sample("", "ab")]
    assert to_samples(ClassifyRequest(input=["a", "b"]), Compat()) == [Sample("", "a"), Sample("", "b")]
    with pytest.raises(ValidationError):
        ClassifyRequest(input=[])


def test_the_last_probability_of_the_last_entry_is_the_reward() -> None:
    reply = to_reply(ClassifyRequest(input=["a", "b"], model="m"), Rewards([0.5, -3.0], {}), "r1").model_dump()
    assert reply["data"][-1]["probs"][-1] == -3.0
    assert [entry["index"] for entry in reply["data"]] == [0, 1]
    assert (reply["id"], reply["model"]) == ("classify-r1", "m")


def test_further_fields_of_vllm_are_ignored() -> None:
    wanted = ClassifyRequest.model_validate({"input": "a", "truncate_prompt_tokens": 5, "user": "u", "priority": 0})
    assert wanted.input == "a"
