"""Reward functions for TRL's trainers: one named function for each served model. Imports neither TRL nor torch.

    trainer = GRPOTrainer(..., reward_funcs=reward_functions(client, ["relevance", "factuality"]))

TRL calls its functions one after the other with the same texts; the first asks the service for all models at once.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from reward_proto import RETRYABLE, ErrorCode, ItemResult, ScoreItem
from rl_client.api.client import RewardClient
from rl_client.api.errors import ApiStatusError, RewardClientError

logger = logging.getLogger(__name__)

RewardFunction: TypeAlias = Callable[..., list[float | None]]
"""`f(prompts, completions, completion_ids=..., **columns)`: a score for each completion, None where there is none."""

Text: TypeAlias = str | Sequence[Mapping[str, Any]]
"""A text, or the turns of a conversation."""

PROMPT = "prompt"


def reward_functions(
    client: RewardClient,
    models: Sequence[str] | None = None,
    *,
    fields: Mapping[str, str] | None = None,
    whole_rows: bool = True,
) -> list[RewardFunction]:
    """Make one reward function for each model.

    Args:
        client: Asks for the scores; its retries are used up before a score counts as missing.
        models: `name`, `name@alias` or `name@version`; every served model when None. A function has its model's name,
            under which TRL logs it.
        fields: For each field of the models' templates the data set's column with it, or `prompt`. When None, every
            column of texts is sent under its own name.
        whole_rows: Whether a completion for which one model fails gets None from all. TRL sums what is not None, so
            that a single None would count as a reward of 0.

    Returns:
        Functions in the order of `models`. A score that could not be given is None, never 0.

    Raises:
        RewardClientError: The service does not say what it serves.
        ValueError: A model is named twice.
    """
    references = [model.name for model in client.models()] if models is None else list(models)
    names = [reference.partition("@")[0] for reference in references]
    if len(set(names)) < len(names):
        raise ValueError(f"a model is named twice: {names}")
    shared = _SharedScores(client, references, names, fields, whole_rows)
    return [_function(shared, name) for name in names]


def _function(shared: "_SharedScores", name: str) -> RewardFunction:
    def reward(
        prompts: Sequence[Text], completions: Sequence[Text], completion_ids: Any = None, **columns: Any
    ) -> list[float | None]:
        return shared.scores(name, prompts, completions, columns)

    reward.__name__ = reward.__qualname__ = name
    reward.__doc__ = f"Scores of the served model {name}; None where there is none."
    return reward


class _SharedScores:
    """The scores of the latest texts, from one call for all functions. Each function takes them once."""

    def __init__(
        self,
        client: RewardClient,
        references: Sequence[str],
        names: Sequence[str],
        fields: Mapping[str, str] | None,
        whole_rows: bool,
    ) -> None:
        self._client = client
        self._references = references
        self._names = names
        self._fields = fields
        self._whole_rows = whole_rows
        self._lock = threading.Lock()
        self._items: list[ScoreItem] = []
        self._taken: set[str] = set(names)
        self._rows: list[dict[str, float | None]] = []

    def scores(
        self, name: str, prompts: Sequence[Text], completions: Sequence[Text], columns: Mapping[str, Any]
    ) -> list[float | None]:
        items = [
            ScoreItem(prompt=_text(prompt), response=_text(completion), fields=self._fields_of(index, prompt, columns))
            for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
        ]
        with self._lock:
            if name in self._taken or items != self._items:
                self._rows = self._ask(items)
                self._items = items
                self._taken = set()
            self._taken.add(name)
            return [row[name] for row in self._rows]

    def _ask(self, items: Sequence[ScoreItem]) -> list[dict[str, float | None]]:
        try:
            results = self._client.score(items, self._references)
        except RewardClientError as error:
            if not _is_of_scores(error):
                raise
            logger.warning("no score for %d completions: %s", len(items), error)
            return [dict.fromkeys(self._names) for _ in items]
        return [self._row(result) for result in results]

    def _row(self, result: ItemResult) -> dict[str, float | None]:
        row = {name: result.scores[name].sequence_score for name in self._names}
        missing = [name for name, score in row.items() if score is None]
        for name in missing:
            error = result.scores[name].error
            logger.warning("item %s has no score of %s: %s", result.id, name, error.message if error else "no segments")
        return dict.fromkeys(self._names) if missing and self._whole_rows else row

    def _fields_of(self, index: int, prompt: Text, columns: Mapping[str, Any]) -> dict[str, str]:
        if self._fields is None:
            return {
                name: column[index]
                for name, column in columns.items()
                if isinstance(column, list) and len(column) > index and isinstance(column[index], str)
            }
        return {
            field: _text(prompt) if column == PROMPT else columns[column][index]
            for field, column in self._fields.items()
        }


def _is_of_scores(error: RewardClientError) -> bool:
    """Whether scores are missing, in contrast to a request that can never be answered: that must stop a training."""
    if isinstance(error, ApiStatusError) and error.code is not None:
        return error.code in RETRYABLE or error.code is ErrorCode.TOO_LONG
    return error.retryable


def _text(given: Text) -> str:
    """A text; of a conversation the contents of its turns, a line each."""
    if isinstance(given, str):
        return given
    return "\n".join(str(turn.get("content") or "") for turn in given)
