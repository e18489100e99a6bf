"""What every format of feedback turns into, so that nothing after the reading knows formats."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn, Protocol

from reward_proto.feedback import SpanError
from reward_service.domain import TextItem
from reward_service.errors import ConfigError

PairKind = Literal["preference", "coverage"]
"""What decides which response is better: people, or the passages covered."""

Pair = tuple[int, int]
"""(winner, loser), indices into a row's responses from 0."""

FeedbackFormat = Literal["qa_feedback", "jsonl"]
"""How files are written: QA-Feedback's own JSON, or plain JSONL."""

MAX_FAULTS_TOLD = 200
"""A file of another format has a fault in every row; past so many their number is told alone."""


@dataclass(frozen=True, slots=True)
class SpanRow:
    """A response in which people marked errors.

    Attributes:
        place: File and line (or example), for messages.
        index: Number of the row in all the given files, from 0.
        item: The response with its prompt and fields.
        errors: The marks; none where people found no error.
    """

    place: str
    index: int
    item: TextItem
    errors: tuple[SpanError, ...]


@dataclass(frozen=True, slots=True)
class PairRow:
    """Responses to one prompt, and which of them beat which.

    Attributes:
        place: File and line (or example), for messages.
        index: Number of the row in all the given files, from 0.
        items: The responses with their prompt and fields.
        pairs: May be empty.
    """

    place: str
    index: int
    items: tuple[TextItem, ...]
    pairs: tuple[Pair, ...]


class Feedback(Protocol):
    """Feedback that has been read and checked."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    @property
    def error_types(self) -> frozenset[str]:
        """Every type of error that is marked."""
        ...

    def span_rows(self) -> Sequence[SpanRow]:
        """The rows with marked responses."""
        ...

    def pair_rows(self, kind: PairKind, similarity: float) -> Sequence[PairRow]:
        """The rows with several responses, compared by `kind`; `similarity` is that of `coverage`.

        Raises:
            ConfigError: The format lacks what `kind` needs.
        """
        ...

    def texts(self) -> Iterator[TextItem]:
        """Every response."""
        ...


def refuse(faults: Sequence[str]) -> NoReturn:
    """Tell faults of feedback, each of which names its place.

    Raises:
        ConfigError: Always.
    """
    told = list(faults[:MAX_FAULTS_TOLD])
    if len(faults) > len(told):
        told.append(f"and {len(faults) - len(told)} more")
    raise ConfigError("feedback", told)
