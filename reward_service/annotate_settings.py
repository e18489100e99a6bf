"""Settings of the page on which people annotate responses: the section `annotate` of the service's file."""

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from reward_service.section import Section

ERROR_TYPES = {
    "relevance": ("Irrelevant", "Redundant", "Incoherent"),
    "factuality": ("Wrong-Grounding", "Unverifiable"),
}
"""QA-Feedback's types of errors in a response, by category. Source: Wu et al., arXiv 2306.01693."""

MISSING_TYPES = ("Missing-Answer", "Missing-Major-Auxiliary", "Missing-Minor-Auxiliary")
"""QA-Feedback's types of missing information."""

MAX_TYPES = 9
"""One digit of the keyboard each."""

TYPE_PATTERN = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"


class AnnotateSettings(Section):
    """The page `/annotate`.

    Attributes:
        path: SQLite file of tasks and annotations, made if it is not there; without it there is no page.
        tasks: Files of QA-Feedback's format whose questions are annotated; added when the service starts.
        annotators_per_task: How many people each task is offered to.
        error_types: Types of errors in a response, by category.
        missing_types: Types of missing information.
    """

    path: Path | None = None
    tasks: tuple[Path, ...] = ()
    annotators_per_task: int = Field(default=1, ge=1, le=64)
    error_types: dict[str, tuple[str, ...]] = Field(default_factory=lambda: dict(ERROR_TYPES))
    missing_types: tuple[str, ...] = MISSING_TYPES

    @field_validator("error_types")
    @classmethod
    def _are_types(cls, error_types: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        _check_types([name for names in error_types.values() for name in names])
        return error_types

    @field_validator("missing_types")
    @classmethod
    def _are_missing_types(cls, missing_types: tuple[str, ...]) -> tuple[str, ...]:
        _check_types(missing_types)
        return missing_types

    @model_validator(mode="after")
    def _tasks_have_a_place(self) -> "AnnotateSettings":
        if self.tasks and self.path is None:
            raise ValueError("tasks need a path, where annotations are kept")
        return self


def _check_types(names: Sequence[str]) -> None:
    bad = [name for name in names if not re.fullmatch(TYPE_PATTERN, name)]
    if bad:
        raise ValueError(f"no name of a type: {', '.join(map(repr, bad))}; it must match {TYPE_PATTERN}")
    if not 1 <= len(names) <= MAX_TYPES or len(set(names)) != len(names):
        raise ValueError(f"give 1 to {MAX_TYPES} different types, got {len(names)}")
