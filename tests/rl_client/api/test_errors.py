import inspect
import re

import pytest

from reward_proto import ErrorCode
from rl_client.api import errors
from rl_client.api.errors import STATUS_ERRORS, ApiStatusError, RewardClientError


def test_every_class_is_in_the_tree_of_the_docstring_and_the_other_way_round() -> None:
    drawn = set(re.findall(r"\w+Error\b", errors.__doc__ or ""))
    defined = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert drawn == defined
    assert all(issubclass(getattr(errors, name), RewardClientError) for name in defined)


@pytest.mark.parametrize("code", ErrorCode)
def test_each_class_has_its_own_code(code: ErrorCode) -> None:
    assert STATUS_ERRORS[code].code is code


def test_the_text_says_what_one_needs_to_look_it_up() -> None:
    error = STATUS_ERRORS[ErrorCode.OVERLOADED]("queue full", status=503, retryable=True, request_id="r1")
    assert str(error) == "503 overloaded: queue full (request r1)"
    assert str(ApiStatusError("<html>", status=502, retryable=True)) == "502 no known error code: <html>"
