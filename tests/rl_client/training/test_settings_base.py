import pytest
from pydantic import ValidationError

from rl_client.training.settings_base import Count, Settings


class Example(Settings):
    size: Count = 1


def test_settings_are_frozen_and_refuse_what_they_do_not_know():
    example = Example(size=2)
    with pytest.raises(ValidationError, match="frozen"):
        example.size = 3
    with pytest.raises(ValidationError, match="extra_forbidden"):
        Example.model_validate({"sise": 2})
    with pytest.raises(ValidationError, match="greater than 0"):
        Example(size=0)
