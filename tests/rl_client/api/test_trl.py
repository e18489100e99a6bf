"""TRL's reward functions against the fake service."""

import logging
import subprocess
import sys

import pytest

from reward_proto import ErrorCode
from rl_client.api import RetryPolicy, RewardClient
from rl_client.api.errors import MissingFieldError, UnknownModelError
from rl_client.api.testing import FakeModel, FakeRewardService
from rl_client.api.trl import reward_functions

MODELS = [FakeModel("length", score=lambda text: float(len(text))), FakeModel("calm", score=lambda text: -1.5)]
NO_RETRIES = RetryPolicy(retry_for_s=0.0)


@pytest.fixture
def service():
    return FakeRewardService(MODELS)


@pytest.fixture
def client(service):
    with RewardClient("http://reward", transport=service.transport, retry=NO_RETRIES) as client:
        yield client


def score_requests(service):
    return [request for request in service.requests if request.items]


def test_each_served_model_has_a_function_of_its_name(client):
    functions = reward_functions(client)
    assert [function.__name__ for function in functions] == ["length", "calm"]
    prompts, completions = ["p", "q"], ["abc", "de"]
    assert functions[0](prompts, completions) == [3.0, 2.0]
    assert functions[1](prompts=prompts, completions=completions, completion_ids=[[1], [2]], extra=[1, 2]) == [
        -1.5,
        -1.5,
    ]


def test_models_can_be_chosen(client):
    (calm,) = reward_functions(client, ["calm@latest"])
    assert calm.__name__ == "calm"
    assert calm(["p"], ["abc"]) == [-1.5]
    with pytest.raises(ValueError, match="twice"):
        reward_functions(client, ["calm", "calm@latest"])


def test_the_functions_of_one_step_share_one_request(client, service):
    length, calm = reward_functions(client)
    for _ in range(2):  # The same texts again are a new step.
        length(["p"], ["abc"])
        calm(["p"], ["abc"])
    calm(["p"], ["other"])
    assert [len(request.models) for request in score_requests(service)] == [2, 2, 2]


def test_conversations_and_fields(client, service):
    (length, _) = reward_functions(client)
    prompts = [[{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]]
    completions = [[{"role": "assistant", "content": "four"}]]
    assert length(prompts, completions, question=["why"], weight=[0.5], trainer_state=object()) == [4.0]
    (item,) = score_requests(service)[0].items
    assert (item.prompt, item.response, item.fields) == ("s\nu", "four", {"question": "why"})


def test_fields_come_from_the_named_columns(client, service):
    (length, _) = reward_functions(client, fields={"context": "passage", "question": "prompt"})
    length(["p"], ["abc"], passage=["text"], other=["not sent"])
    (item,) = score_requests(service)[0].items
    assert item.fields == {"context": "text", "question": "p"}


def test_one_failed_score_makes_its_row_none(client, service, caplog):
    caplog.set_level(logging.ERROR)
    service.fail_scores("calm", ErrorCode.TOO_LONG, item_id="1")
    length, calm = reward_functions(client)
    assert length(["p"] * 3, ["a", "bb", "ccc"]) == [1.0, None, 3.0]
    assert calm(["p"] * 3, ["a", "bb", "ccc"]) == [-1.5, None, -1.5]


def test_rows_may_be_kept_in_part(client, service, caplog):
    caplog.set_level(logging.ERROR)
    service.fail_scores("calm", ErrorCode.TOO_LONG, item_id="1")
    length, calm = reward_functions(client, whole_rows=False)
    assert length(["p"] * 2, ["a", "bb"]) == [1.0, 2.0]
    assert calm(["p"] * 2, ["a", "bb"]) == [-1.5, None]


def test_a_service_that_fails_gives_none_and_a_warning(client, service, caplog):
    functions = reward_functions(client)
    service.fail_next(ErrorCode.OVERLOADED)
    for function in functions:
        assert function(["p"] * 2, ["a", "bb"]) == [None, None]
    assert "no score for 2 completions" in caplog.text
    assert functions[0](["p"] * 2, ["a", "bb"]) == [1.0, 2.0], "the next step asks again"


def test_what_can_never_be_answered_is_raised(client, service):
    (gone,) = reward_functions(client, ["nobody"])
    with pytest.raises(UnknownModelError):
        gone(["p"], ["a"])
    service.fail_next(ErrorCode.MISSING_FIELD)
    with pytest.raises(MissingFieldError):
        reward_functions(client)[0](["p"], ["a"])


def test_neither_trl_nor_torch_is_imported():
    code = "import sys, rl_client.api.trl; assert not {'trl', 'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
