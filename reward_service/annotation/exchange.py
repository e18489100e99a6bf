"""What the formats of other programs have in common: the names of their parts, and one way to read and write them."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reward_proto.feedback import PREFERENCE_PAIRS
from reward_service.annotation.annotation import Annotation, checked_name, faults_of
from reward_service.annotation.passages import divide_text
from reward_service.annotation.store import Kept
from reward_service.annotation.task import MAX_RESPONSES, Task

RESPONSE_NAMES = ("response", *(f"response_{number}" for number in range(2, MAX_RESPONSES + 1)))
"""Fields that hold a task's responses."""

PREFERENCE_NAMES = tuple(f"preference_{first}_{second}" for first, second in PREFERENCE_PAIRS)
"""Questions about pairs of responses."""

CHOICES = ("neither", "first", "second")
"""Answers to them, by QA-Feedback's number."""

NAMESPACE = uuid.UUID("6f1f9a3e-6f0e-5d6c-9a55-0d6a6e1f7c11")
"""Makes ids of names, the same in every export."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A task of another program, and what people said of it there, by name."""

    task: Task
    annotations: Mapping[str, Annotation]


def read_each(content: Any, name: str, read: Callable[[Any], Imported]) -> list[Imported]:
    """Read a file's list, one entry at a time.

    Args:
        content: The file's content.
        name: What an entry is called in messages.
        read: Reads one.

    Raises:
        ValueError: It is no list, or an entry cannot be read: with its number, from 0.
    """
    if not isinstance(content, list):
        raise ValueError(f"must be a list of {name}s")
    found = []
    for number, entry in enumerate(content):
        try:
            found.append(read(entry))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"{name} {number}: {error!r}") from error
    return found


def by_task(annotated: Sequence[tuple[Task, Kept]]) -> Iterator[tuple[Task, list[Kept]]]:
    """Annotations of one task together, in order."""
    grouped: dict[str, tuple[Task, list[Kept]]] = {}
    for task, kept in annotated:
        grouped.setdefault(task.id, (task, []))[1].append(kept)
    yield from grouped.values()


def task_fields(task: Task) -> dict[str, str]:
    """The question and the responses by the names of their fields."""
    return {"question": task.question, **dict(zip(RESPONSE_NAMES, task.responses, strict=False))}


def task_of(fields: Mapping[str, Any], passages: Any) -> Task:
    """A task from another program's fields.

    Args:
        fields: `question`, `response` and, for more responses, `response_2` to `response_4`.
        passages: Lists of title and sentences; or a text, whose lines are divided into sentences; or nothing.

    Raises:
        ValueError: It is no task.
    """
    texts = {name: fields.get(name) or "" for name in ("question", "gold", *RESPONSE_NAMES)}
    wrong = [name for name, text in texts.items() if not isinstance(text, str)]
    if wrong:
        raise ValueError(f"{wrong[0]} is no text")
    if isinstance(passages, str):
        kept: Sequence[Sequence[str]] = divide_text(passages)
    elif passages is None:
        kept = ()
    elif _are_passages(passages):
        kept = passages
    else:
        raise ValueError("passages are neither a text nor lists of a title and sentences")
    return Task.of(texts["question"], kept, [texts[name] for name in RESPONSE_NAMES], texts["gold"])


def _are_passages(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(passage, list) and all(isinstance(sentence, str) for sentence in passage) for passage in value
    )


def choices_of(preference: Sequence[int | None]) -> Iterator[tuple[str, str]]:
    """The questions about pairs that are decided, and their answers."""
    for name, choice in zip(PREFERENCE_NAMES, preference, strict=True):
        if choice is not None:
            yield name, CHOICES[choice]


def choice_number(name: str, answer: Any) -> tuple[int, int]:
    """The pair that a question is about, and QA-Feedback's number of its answer.

    Raises:
        ValueError: There is no such question or answer.
    """
    if name not in PREFERENCE_NAMES or answer not in CHOICES:
        raise ValueError(f"{name} is answered by one of {', '.join(CHOICES)}, not {answer!r}")
    return PREFERENCE_NAMES.index(name), CHOICES.index(answer)


def imported(task: Task, annotations: Mapping[str, Annotation]) -> Imported:
    """Check what was read.

    Raises:
        ValueError: An annotation does not fit the task, or its annotator's name is none.
    """
    checked = {checked_name(name): annotation for name, annotation in annotations.items()}
    faults = [
        f"{name}: {fault}" for name, annotation in checked.items() for fault in faults_of(task, annotation, done=False)
    ]
    if faults:
        raise ValueError("; ".join(faults))
    return Imported(task, checked)
