from pathlib import Path

import pytest
from pydantic import ValidationError

from rl_client.inference.settings import GenerateConfig

DOCS = Path(__file__).parents[3] / "docs" / "reranking.md"
SETTINGS = {
    "output": "out",
    "policy": "policy",
    "prompts": "prompts.jsonl",
    "service": {"url": "http://reward"},
    "rewards": [{"model": "a"}],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generation": {"samples_per_prompt": 1}}, "2 candidates"),
        ({"generation": {"greedy": True}}, "2 candidates"),
        ({"granularity": "sequence"}, "select: response"),
        ({"rewards": []}, "at least 1"),
        ({"rewards": [{"model": "a"}, {"model": "a@v2"}]}, "more than once"),
    ],
)
def test_settings_without_a_choice_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        GenerateConfig.model_validate(SETTINGS | change)


def test_every_setting_of_its_own_is_documented():
    text = DOCS.read_text(encoding="utf-8")
    own = set(GenerateConfig.model_fields) - {"output", "seed", "threads", "device", "precision"}
    assert [name for name in sorted(own) if f"`{name}`" not in text and f"`{name}." not in text] == []
