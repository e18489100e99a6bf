import json
from pathlib import Path

import pytest

from reward_service.annotate_settings import AnnotateSettings
from reward_service.annotating import opened_annotations
from reward_service.errors import ConfigError


def test_it_is_off_without_a_path() -> None:
    with opened_annotations(AnnotateSettings()) as store:
        assert store is None


def test_tasks_of_the_settings_are_added_once(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.json"
    tasks.write_text(json.dumps([{"question": f"q{number}", "prediction 1": "a"} for number in range(3)]))
    settings = AnnotateSettings(path=tmp_path / "a.db", tasks=(tasks,))
    for _ in range(2):
        with opened_annotations(settings) as store:
            assert store is not None
            assert [task.question for task in store.all_tasks()] == ["q0", "q1", "q2"]


def test_what_is_not_there_is_a_fault_of_the_settings(tmp_path: Path) -> None:
    for settings, fault in (
        (AnnotateSettings(path=tmp_path / "no" / "a.db"), "is no folder"),
        (AnnotateSettings(path=tmp_path / "a.db", tasks=(tmp_path / "no.json",)), "No such file"),
    ):
        with pytest.raises(ConfigError, match=fault), opened_annotations(settings):
            pass
