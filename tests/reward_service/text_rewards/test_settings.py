import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from reward_service.text_rewards.settings import (
    ApiSettings,
    CallableSettings,
    JudgeSettings,
    PerspectiveSettings,
    TextSettings,
)

PAGE = Path(__file__).parents[3] / "docs" / "text-rewards.md"
JUDGE: dict[str, Any] = {
    "source": "judge",
    "name": "judge",
    "base_url": "http://127.0.0.1:1/v1",
    "model": "m",
    "labels": {"ok": "fine", "bad": "not fine"},
}


@pytest.mark.parametrize(
    ("heading", "schema", "further"),
    [
        ("Settings of every entry", TextSettings, {"source"}),
        ("Settings of remote services", ApiSettings, set()),
        ("The Perspective API", PerspectiveSettings, set()),
        ("A language model as judge", JudgeSettings, set()),
        ("A Python function", CallableSettings, set()),
    ],
)
def test_every_setting_is_documented(heading: str, schema: type[TextSettings], further: set[str]) -> None:
    """Each section's table has a row for each setting that its schema adds, and no other than the schema has."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    added = {name for name in schema.__annotations__ if name in schema.model_fields} - {"source"}
    assert added | further <= rows <= set(schema.model_fields) | further


def test_the_judge_must_make_sense() -> None:
    for change, told in [
        ({"ok_label": "fine"}, "ok_label 'fine' is not among the labels ok, bad"),
        ({"samples": 3}, "need a temperature"),
    ]:
        with pytest.raises(ValidationError, match=told):
            JudgeSettings.model_validate(JUDGE | change)
    assert JudgeSettings.model_validate(JUDGE | {"samples": 3, "temperature": 0.5}).samples == 3


@pytest.mark.parametrize("url", ["ftp://host", "host/v1", "http://host/v1?key=secret", ""])
def test_a_url_with_a_query_or_none_at_all_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="base_url"):
        JudgeSettings.model_validate(JUDGE | {"base_url": url})


@pytest.mark.parametrize("schema", [PerspectiveSettings, JudgeSettings, CallableSettings])
def test_what_is_no_part_of_a_version_is_a_setting(schema: type[TextSettings]) -> None:
    assert set(schema.model_fields) >= schema.UNVERSIONED
