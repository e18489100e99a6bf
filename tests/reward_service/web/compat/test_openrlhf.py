import pytest

from reward_service.compat_settings import Compat
from reward_service.errors import InvalidRequestError
from reward_service.web.compat.combine import Rewards
from reward_service.web.compat.openrlhf import OpenRlhfRequest, to_reply, to_samples
from reward_service.web.compat.texts import Sample


def test_labels_are_used_where_they_are_texts() -> None:
    wanted = OpenRlhfRequest(query=["ab", "cd", "ef"], prompts=["a", "c", "e"], labels=["x", 3, None])
    assert to_samples(wanted, Compat()) == [
        Sample("a", "b", "x", cut=True),
        Sample("c", "d", cut=True),
        Sample("e", "f", cut=True),
    ]


@pytest.mark.parametrize("column", ["prompts", "labels"])
def test_columns_of_another_length_are_refused(column: str) -> None:
    wanted = OpenRlhfRequest.model_validate({"query": ["ab", "cd"], "prompts": ["a", "c"], column: ["a"]})
    with pytest.raises(InvalidRequestError, match=f"{column}: 1 entries for 2"):
        to_samples(wanted, Compat())


def test_extra_logs_are_flat_and_of_equal_length() -> None:
    reply = to_reply(Rewards([0.5, 0.25], {"m": [1.0, 2.0], "n": [3.0, 4.0]}))
    assert reply.rewards == reply.scores == [0.5, 0.25]
    assert reply.extra_logs == {"m": [1.0, 2.0], "n": [3.0, 4.0]}
