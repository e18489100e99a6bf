"""Feedback on a command line: files or slices of files, and how they are written."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from reward_service.errors import ConfigError

if TYPE_CHECKING:
    from reward_service.training.data_files import DataFile


class FeedbackFormat(StrEnum):
    """How feedback is written."""

    QA_FEEDBACK = "qa_feedback"
    JSONL = "jsonl"


class EvaluateFormat(StrEnum):
    """How what a model is judged by is written: feedback, or benchmarks of preferences or of steps."""

    QA_FEEDBACK = "qa_feedback"
    JSONL = "jsonl"
    PREFERENCES = "preferences"
    STEPS = "steps"


def parse_files(data: Sequence[str]) -> "list[DataFile]":
    """Read `FILE` and `FILE[START:STOP]`.

    Raises:
        ConfigError: Brackets that hold no range.
    """
    from reward_service.training.data_files import DataFile

    try:
        return [DataFile.parse(text) for text in data]
    except ValueError as error:
        raise ConfigError("--data", [str(error)]) from error
