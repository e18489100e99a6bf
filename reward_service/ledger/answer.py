"""The seam between the web layer and the ledger: what it is told, and what it tells of itself. Needs no database."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from reward_service.domain import ItemScore, ModelOutcome, TextItem

ANSWER_BYTES = 500
SCORE_BYTES = 300
SEGMENT_BYTES = 400
"""About what the objects take in memory, besides the texts."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asked.

    Attributes:
        request_id: As in the reply.
        client_job: The training job; empty if none is named.
        run: The run of that job; empty if none is named.
        step: The step of that run, if one is named.
    """

    request_id: str
    client_job: str = ""
    run: str = ""
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answered request.

    Attributes:
        time_ms: When it was answered, since 1970.
        asker: Who asked.
        item_ids: As in the reply.
        items: What was scored, in the same order.
        models: What each model said.
    """

    time_ms: int
    asker: Asker
    item_ids: tuple[str, ...]
    items: tuple[TextItem, ...]
    models: tuple[ModelOutcome, ...]

    @property
    def scores(self) -> int:
        """How many scores it holds; an error is none."""
        return sum(isinstance(result, ItemScore) for model in self.models for result in model.results)

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        texts = sum(len(item.prompt) + len(item.response) + sum(map(len, item.fields.values())) for item in self.items)
        scores = [result for model in self.models for result in model.results if isinstance(result, ItemScore)]
        segments = sum(len(score.segments) for score in scores)
        return ANSWER_BYTES + texts + SCORE_BYTES * len(scores) + SEGMENT_BYTES * segments


class Ledger(Protocol):
    """Keeps what was answered. Never fails, never waits."""

    def record(
        self, asker: Asker, item_ids: Sequence[str], items: Sequence[TextItem], models: Sequence[ModelOutcome]
    ) -> None:
        """Keep the scores of a request that is about to be answered.

        Args:
            asker: Who asked.
            item_ids: One for each item, as in the reply.
            items: What was scored, in the same order.
            models: What each model said.
        """
        ...


class LedgerTelemetry(Protocol):
    """Is told what became of scores. Called from several threads."""

    def ledger_scores(self, event: str, count: int) -> None:
        """Some scores were `written`, `dropped` (never will be) or `expired` (deleted for their age or the size)."""
        ...

    def ledger_failed(self) -> None:
        """The database failed once."""
        ...


class LedgerState(Protocol):
    """What a ledger shows of itself."""

    @property
    def works(self) -> bool:
        """Whether the last thing that was tried in the database went well."""
        ...

    @property
    def pending_scores(self) -> int:
        """How many wait to be written."""
        ...

    @property
    def pending_bytes(self) -> int:
        """What they take in memory, about."""
        ...
