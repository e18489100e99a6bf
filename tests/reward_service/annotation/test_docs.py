"""docs/annotation.md against the code: its settings load, and its labelling settings name what is written and read."""

import re
from pathlib import Path
from xml.etree import ElementTree

import yaml

from reward_service.annotate_settings import ERROR_TYPES, MISSING_TYPES, AnnotateSettings
from reward_service.annotation.annotation import Annotation
from reward_service.annotation.label_studio import write_label_studio
from reward_service.annotation.store import Kept
from reward_service.annotation.task import Task
from reward_service.cli.annotating import Source

TEXT = (Path(__file__).parents[3] / "docs" / "annotation.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)
    return str(found)


def test_the_settings_load() -> None:
    assert AnnotateSettings.model_validate(yaml.safe_load(block("yaml"))["annotate"]).annotators_per_task == 2


def test_every_type_and_format_is_documented() -> None:
    names = [*(name for names in ERROR_TYPES.values() for name in names), *MISSING_TYPES, *Source]
    assert [name for name in names if f"`{name}`" not in TEXT] == []


def test_label_studios_settings_fit_what_is_written(task: Task, annotation: Annotation) -> None:
    view = ElementTree.fromstring(block("xml"))
    controls = {tag.get("name"): (tag.tag.lower(), tag.get("toName")) for tag in view if tag.get("toName")}
    texts = {str(tag.get("value")).lstrip("$"): tag.get("name") for tag in view if tag.tag == "Text"}
    labels = {
        name: [label.get("value") for label in view.findall(f"Labels[@name='{name}']/Label")] for name in controls
    }
    assert labels["error"] == [name for names in ERROR_TYPES.values() for name in names]
    assert labels["missing"] == list(MISSING_TYPES)
    (written,) = write_label_studio([], [(task, Kept("anna", annotation, True, 1))])
    assert texts.keys() <= written["data"].keys()
    results = {
        result["from_name"]: (result["type"], result["to_name"]) for result in written["annotations"][0]["result"]
    }
    shown = {name: result for name, result in results.items() if name in controls}
    assert shown == {name: control for name, control in controls.items() if name in shown}
    assert {name for name in results if name not in controls} == {"preference_1_3", "preference_2_3"}
