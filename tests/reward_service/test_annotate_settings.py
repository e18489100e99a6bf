from pathlib import Path

import pytest
from pydantic import ValidationError

from reward_service.annotate_settings import ERROR_TYPES, MISSING_TYPES, AnnotateSettings


def test_the_page_is_off_and_has_the_papers_types() -> None:
    settings = AnnotateSettings()
    assert settings.path is None
    assert settings.error_types == ERROR_TYPES
    assert settings.missing_types == MISSING_TYPES


def test_types_are_the_users() -> None:
    settings = AnnotateSettings.model_validate({"error_types": {"tone": ["Rude"]}, "missing_types": ["Gone"]})
    assert settings.error_types == {"tone": ("Rude",)}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"error_types": {"a": ["x"], "b": ["x"]}}, "different"),
        ({"error_types": {}}, "1 to 9"),
        ({"error_types": {"a": [f"t{number}" for number in range(10)]}}, "got 10"),
        ({"error_types": {"a": ["a b"]}}, "no name of a type"),
        ({"missing_types": []}, "1 to 9"),
        ({"tasks": [Path("a.json")]}, "tasks need a path"),
        ({"annotators_per_task": 0}, "greater than or equal to 1"),
    ],
)
def test_faults_are_told(content: dict[str, object], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        AnnotateSettings.model_validate(content)
