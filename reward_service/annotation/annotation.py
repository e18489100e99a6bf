"""What one person says of a task, and whether it can be meant."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from reward_proto.feedback import PREFERENCE_PAIRS, Feedback, FeedbackExample
from reward_service.annotate_settings import AnnotateSettings
from reward_service.annotation.task import MAX_RESPONSES, Task

UNDECIDED: tuple[int | None, ...] = (None,) * len(PREFERENCE_PAIRS)

NEITHER = 0
"""QA-Feedback's number for a pair of which neither is better."""

MAX_NAME_CHARS = 64


class Annotation(BaseModel):
    """One person's feedback on a task.

    Attributes:
        feedback: Marks on the first response, missing information, a corrected response, in QA-Feedback's names.
        preference: For each of `PREFERENCE_PAIRS` 1 the first is better, 2 the second, 0 neither, null undecided.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    feedback: Feedback = Field(default_factory=Feedback)
    preference: list[Annotated[int, Field(ge=0, le=2)] | None] = Field(default_factory=lambda: list(UNDECIDED))

    @field_validator("preference")
    @classmethod
    def _is_whole(cls, preference: list[int | None]) -> list[int | None]:
        if len(preference) != len(PREFERENCE_PAIRS):
            raise ValueError(f"must have {len(PREFERENCE_PAIRS)} entries, null where nothing is decided")
        return preference


@dataclass(frozen=True, slots=True)
class Types:
    """The names that marks may have.

    Attributes:
        errors: Types of errors by category.
        missing: Types of missing information.
    """

    errors: Mapping[str, Sequence[str]]
    missing: Sequence[str]

    @classmethod
    def of(cls, settings: AnnotateSettings) -> "Types":
        """Those of the settings."""
        return cls(settings.error_types, settings.missing_types)

    @property
    def all_errors(self) -> tuple[str, ...]:
        """Types of errors of every category, in order."""
        return tuple(name for names in self.errors.values() for name in names)


def faults_of(task: Task, annotation: Annotation, *, done: bool, types: Types | None = None) -> list[str]:
    """Why an annotation cannot be one of this task; nothing if it can.

    Args:
        task: What is annotated.
        annotation: What is said of it.
        done: Whether it claims to be whole: then all pairs are decided, or none.
        types: What marks may be called; anything if None.
    """
    faults = [*_mark_faults(task, annotation), *_missing_faults(task, annotation)]
    if types is not None:
        faults += [
            f"no error type {error.error_type!r}; there is {', '.join(types.all_errors)}"
            for error in annotation.feedback.errors
            if error.error_type not in types.all_errors
        ]
        faults += [
            f"no type of missing information {missing.error_type!r}; there is {', '.join(types.missing)}"
            for missing in annotation.feedback.missing_info
            if missing.error_type not in types.missing
        ]
    decided = [number for number, choice in enumerate(annotation.preference) if choice is not None]
    absent = [number for number in decided if number not in task.pairs]
    if absent:
        faults.append(f"pair {PREFERENCE_PAIRS[absent[0]]} compares a response that is not there")
    elif done and 0 < len(decided) < len(task.pairs):
        left = len(task.pairs) - len(decided)
        faults.append(f"{left} of {len(task.pairs)} pairs are undecided: decide all of them, or none")
    return faults


def _mark_faults(task: Task, annotation: Annotation) -> Iterator[str]:
    length = len(task.responses[0])
    for error in annotation.feedback.errors:
        if not 0 <= error.start < error.end <= length:
            yield f"error span [{error.start}, {error.end}) is outside the response ({length} characters)"


def _missing_faults(task: Task, annotation: Annotation) -> Iterator[str]:
    for missing in annotation.feedback.missing_info:
        if not 1 <= missing.passage_id <= len(task.passages):
            yield f"missing information names passage {missing.passage_id} of {len(task.passages)}"
            continue
        entries = len(task.passages[missing.passage_id - 1])
        outside = [sentence for sentence in missing.sentence_id if not 0 <= sentence < entries]
        if outside or not missing.sentence_id:
            yield f"missing information names sentences {missing.sentence_id} of a passage with {entries - 1}"


def checked_name(name: str) -> str:
    """An annotator's name without blanks around it.

    Raises:
        ValueError: It is empty, too long, or cannot be printed.
    """
    name = " ".join(name.split())
    if not name or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise ValueError(f"an annotator's name has 1 to {MAX_NAME_CHARS} printable characters")
    return name


def to_example(task: Task, annotation: Annotation) -> FeedbackExample:
    """Write an annotation as QA-Feedback does.

    Pairs of responses that are not there count as "neither", which teaches nothing; undecided ones leave out the whole
    preference, since the format has no word for them.
    """
    responses = [*task.responses, *[""] * (MAX_RESPONSES - len(task.responses))]
    decided = bool(task.pairs) and all(annotation.preference[number] is not None for number in task.pairs)
    return FeedbackExample(
        question=task.question,
        passages=[list(passage) for passage in task.passages],
        gold=task.gold,
        prediction_1=responses[0],
        prediction_2=responses[1],
        prediction_3=responses[2],
        prediction_4=responses[3],
        feedback=annotation.feedback,
        preference=[choice or NEITHER for choice in annotation.preference] if decided else [],
    )


def from_example(example: FeedbackExample) -> tuple[Task, Annotation]:
    """Read an example of QA-Feedback.

    Raises:
        ValueError: It holds no task, or its feedback does not fit it.
    """
    task = Task.of(example.question, example.passages, example.predictions, example.gold)
    preference: list[int | None] = list(UNDECIDED)
    if example.preference:
        if len(example.preference) != len(PREFERENCE_PAIRS):
            raise ValueError(f"preference must be {len(PREFERENCE_PAIRS)} numbers, got {example.preference}")
        for number in task.pairs:
            preference[number] = example.preference[number]
    annotation = Annotation(feedback=example.feedback, preference=preference)
    faults = faults_of(task, annotation, done=True)
    if faults:
        raise ValueError("; ".join(faults))
    return task, annotation
