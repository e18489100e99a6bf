import pytest

from reward_service.annotation.annotation import Annotation
from reward_service.annotation.exchange import by_task, choice_number, choices_of, imported, task_of
from reward_service.annotation.store import Kept
from reward_service.annotation.task import Task


def test_choices_there_and_back() -> None:
    found = dict(choices_of([1, None, 0, None, None, 2]))
    assert found == {"preference_1_2": "first", "preference_1_4": "neither", "preference_3_4": "second"}
    assert [choice_number(name, answer) for name, answer in found.items()] == [(0, 1), (2, 0), (5, 2)]
    for name, answer in (("preference_2_1", "first"), ("preference_1_2", "both"), ("x", "first")):
        with pytest.raises(ValueError, match="is answered by"):
            choice_number(name, answer)


def test_a_task_is_made_of_fields() -> None:
    fields = {"question": "q", "response": "a", "response_3": "c", "gold": None}
    assert task_of(fields, [["t", "s"]]) == Task("q", (("t", "s"),), ("a", "", "c"), "")
    for wrong, passages in (({"response": 3}, None), ({"response": "a"}, [["t"], "s"]), ({"response": "a"}, [[3]])):
        with pytest.raises(ValueError, match=r"no text|neither a text"):
            task_of(wrong, passages)


def test_annotations_of_a_task_stand_together(task: Task) -> None:
    other = Task.of("q", [], ["a"])
    one, two = (Kept(name, Annotation(), True, 1) for name in ("anna", "bob"))
    assert list(by_task([(task, one), (other, one), (task, two)])) == [(task, [one, two]), (other, [one])]


def test_what_does_not_fit_is_told_with_its_annotator(task: Task) -> None:
    bad = Annotation(preference=[None, None, 1, None, None, None])
    with pytest.raises(ValueError, match="anna: pair"):
        imported(task, {"anna": bad})
    with pytest.raises(ValueError, match="printable"):
        imported(task, {" ": Annotation()})
