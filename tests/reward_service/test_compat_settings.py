import pytest
from pydantic import ValidationError

from reward_service.compat_settings import Compat


def test_without_a_section_nothing_is_weighted() -> None:
    settings = Compat()
    assert settings.weights == {}
    assert settings.empty_score is None
    assert {"<s>", "<|im_end|>"} <= set(settings.special_tokens)


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        ({"fields": {"question": "{response}"}}, "only {prompt} and {label}"),
        ({"fields": {"question": "{prompt!r}"}}, "only {prompt} and {label}"),
        ({"fields": {"question": "{prompt:>9}"}}, "only {prompt} and {label}"),
        ({"fields": {"question": "{}"}}, "only {prompt} and {label}"),
        ({"fields": {"question": "{prompt"}}, "question"),
        ({"special_tokens": ["<s>", ""]}, "a special token is empty"),
        ({"prompt_between": ["", "x"]}, "a mark is empty"),
        ({"prompt_between": ["x"]}, "prompt_between"),
        ({"response_after": ""}, "at least 1 character"),
        ({"weights": {"a": float("nan")}}, "finite"),
        ({"empty_score": float("inf")}, "finite"),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_faults_are_told(section: dict[str, object], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Compat.model_validate(section)
