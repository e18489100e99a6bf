"""Files of tasks and annotations: read into the store, and written from it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reward_proto.feedback import FeedbackExample, FeedbackFile
from reward_service.annotation.annotation import Annotation, checked_name, faults_of, from_example, to_example
from reward_service.annotation.argilla import read_argilla, write_argilla
from reward_service.annotation.exchange import Imported
from reward_service.annotation.label_studio import read_label_studio, write_label_studio
from reward_service.annotation.offsets import Offsets
from reward_service.annotation.scored import ModelScore, ScoredResponse
from reward_service.annotation.store import AnnotationStore, Kept
from reward_service.annotation.task import Task
from reward_service.errors import ConfigError


class TaskFormat(StrEnum):
    """How a file of annotations is written."""

    QA_FEEDBACK = "qa_feedback"
    LABEL_STUDIO = "label_studio"
    ARGILLA = "argilla"


OFFSETS = {TaskFormat.LABEL_STUDIO: Offsets.CODE_POINTS, TaskFormat.ARGILLA: Offsets.UTF16}
"""What the positions of other programs count, unless somebody says otherwise."""


_DEFAULTS: dict[str, Any] = {"passages": [], "feedback": {}, **{f"prediction {number}": "" for number in (2, 3, 4)}}
"""What a file of tasks alone may leave out."""


@dataclass(frozen=True, slots=True)
class Added:
    """What came into the store: new tasks, new annotations; and annotations that were there and stay as they are."""

    tasks: int
    annotations: int
    kept: int


def read_annotations(
    path: Path, data_format: TaskFormat, *, annotator: str | None = None, offsets: Offsets | None = None
) -> list[Imported]:
    """Read a file.

    Args:
        path: The file.
        data_format: How it is written.
        annotator: Whose feedback QA-Feedback's files hold; None reads their questions and responses alone.
        offsets: What another program's positions count; its usual ones if None.

    Raises:
        ConfigError: It cannot be read, or has faults, each of them told with its place.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if data_format is TaskFormat.QA_FEEDBACK:
            return _read_examples(path, content, annotator)
        read: Callable[[Any, Offsets], list[Imported]] = (
            read_label_studio if data_format is TaskFormat.LABEL_STUDIO else read_argilla
        )
        found = read(content, offsets or OFFSETS[data_format])
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), [str(error)]) from error
    return found


def _read_examples(path: Path, content: Any, annotator: str | None) -> list[Imported]:
    if not isinstance(content, list):
        raise ValueError("must be a list of examples")
    name = None if annotator is None else checked_name(annotator)
    found: list[Imported] = []
    faults: list[str] = []
    for number, entry in enumerate(content):
        try:
            whole = {**_DEFAULTS, **entry} if isinstance(entry, dict) else entry
            task, annotation = from_example(FeedbackExample.model_validate(whole))
            found.append(Imported(task, {} if name is None else {name: annotation}))
        except ValidationError as error:
            faults += [
                f"example {number}.{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
                for fault in error.errors(include_url=False)
            ]
        except ValueError as error:
            faults.append(f"example {number}: {error}")
    if faults:
        raise ConfigError(str(path), faults)
    return found


def add_imported(store: AnnotationStore, found: Sequence[Imported]) -> Added:
    """Put tasks and annotations into the store; those that decide some pairs and not others come as drafts.

    An annotation that the store has already, of the same person on the same task, stays as it is and is counted.
    """
    new = store.add_tasks(one.task for one in found)
    added = kept = 0
    for one in found:
        for name, annotation in one.annotations.items():
            if store.find(one.task.id, name) is not None:
                kept += 1
                continue
            done = not faults_of(one.task, annotation, done=True)
            store.save(one.task.id, name, annotation, done=done, based_on=0)
            added += 1
    return Added(new, added, kept)


class _Segment(BaseModel):
    score: float
    label: str | None = None


class _Score(BaseModel):
    version: str = ""
    segments: list[_Segment] | None = None
    sequence_score: float | None = None


class _Line(BaseModel):
    """A line of `responses.jsonl`; what else it holds does not matter here."""

    model_config = ConfigDict(extra="ignore")

    prompt: str = ""
    fields: dict[str, str] = Field(default_factory=dict)
    response: str
    scores: dict[str, _Score] = Field(default_factory=dict)


def read_responses(path: Path) -> list[ScoredResponse]:
    """Read the `responses.jsonl` that `rl-client evaluate` writes, with scores or without.

    Raises:
        ConfigError: It cannot be read, or lines are malformed: each with its number.
    """
    found: list[ScoredResponse] = []
    faults: list[str] = []
    try:
        with path.open(encoding="utf-8") as stream:
            for number, text in enumerate(stream, start=1):
                if not text.strip():
                    continue
                try:
                    line = _Line.model_validate_json(text)
                except ValidationError as error:
                    faults += [
                        f"line {number}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}"
                        for fault in error.errors(include_url=False)
                    ]
                    continue
                scores = {name: _model_score(score) for name, score in line.scores.items()}
                found.append(ScoredResponse(line.prompt, line.fields, line.response, scores))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [str(error)]) from error
    if faults:
        raise ConfigError(str(path), faults)
    return found


def _model_score(score: _Score) -> ModelScore:
    labelled = [segment.score for segment in score.segments or () if segment.label is not None]
    return ModelScore(score.sequence_score, tuple(labelled))


def render(
    store: AnnotationStore,
    data_format: TaskFormat,
    *,
    annotator: str | None = None,
    drafts: bool = False,
    offsets: Offsets | None = None,
) -> str:
    """What people said, as a file of one of the formats. QA-Feedback's holds an example for each annotation.

    Args:
        store: The tasks and annotations.
        data_format: How to write them; other programs' formats hold every task, also those that nobody finished.
        annotator: Whose; everybody's if None.
        drafts: Whether unfinished annotations are written too.
        offsets: What another program's positions count; its usual ones if None.
    """
    annotated = store.annotated(annotator, drafts=drafts)
    if data_format is TaskFormat.QA_FEEDBACK:
        return _render_examples(annotated)
    write: Callable[[Sequence[Task], Sequence[tuple[Task, Kept]], Offsets], list[dict[str, Any]]] = (
        write_label_studio if data_format is TaskFormat.LABEL_STUDIO else write_argilla
    )
    content = write(store.all_tasks(), annotated, offsets or OFFSETS[data_format])
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _render_examples(annotated: Sequence[tuple[Task, Kept]]) -> str:
    examples = [to_example(task, kept.annotation) for task, kept in annotated]
    return FeedbackFile.dump_json(examples, by_alias=True, indent=1).decode() + "\n"


def undecided_drafts(annotated: Sequence[tuple[Task, Annotation]]) -> int:
    """How many have decided some pairs and not others, so that QA-Feedback's format cannot hold their preference."""
    return sum(
        0 < sum(annotation.preference[number] is not None for number in task.pairs) < len(task.pairs)
        for task, annotation in annotated
    )
