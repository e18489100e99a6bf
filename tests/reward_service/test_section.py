import pytest
from pydantic import ValidationError

from reward_service.section import Section


class Shape(Section):
    size: float = 1.0


def test_unknown_keys_and_infinities_are_faults_and_values_stay() -> None:
    for content in ({"sise": 1}, {"size": float("inf")}):
        with pytest.raises(ValidationError):
            Shape.model_validate(content)
    with pytest.raises(ValidationError):
        Shape().size = 2.0
