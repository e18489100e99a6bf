import pytest

from reward_service.annotation.task import Task


def test_the_same_content_is_the_same_task(task: Task) -> None:
    again = Task.from_json(task.to_json())
    assert again == task
    assert again.id == task.id
    assert len(task.id) == 16
    assert Task.of(task.question, task.passages, task.responses, "other").id != task.id


def test_blank_responses_at_the_end_are_none() -> None:
    task = Task.of("q", [], ["a", "", "c", " "])
    assert task.responses == ("a", "", "c")
    assert task.pairs == (0, 1, 3)
    assert Task.of("q", [], ["a", "", "", ""]).pairs == ()
    assert Task.of("q", [], list("abcd")).pairs == (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("responses", "passages", "fault"),
    [
        ([], [], "no response to mark"),
        (["  ", "b"], [], "no response to mark"),
        (list("abcde"), [], "5 responses"),
        (["a"], [["t", "s"], []], "passage 2 is empty"),
    ],
)
def test_what_is_no_task_is_refused(responses: list[str], passages: list[list[str]], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Task.of("q", passages, responses)
