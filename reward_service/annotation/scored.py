"""Responses with scores, as `rl-client evaluate` and the ledger give them, to tasks: the most telling ones first."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from reward_service.annotation.passages import divide_text
from reward_service.annotation.task import MAX_RESPONSES, Task

QUESTION, CONTEXT = "question", "context"
"""Fields from which a task takes its question and its passages."""

CERTAIN = 1.0


class Order(StrEnum):
    """Which responses are annotated first."""

    GIVEN = "given"
    CONFIDENCE = "confidence"
    DISAGREEMENT = "disagreement"


@dataclass(frozen=True, slots=True)
class ModelScore:
    """What one model says of a response.

    Attributes:
        sequence_score: Of the whole; None where there is none.
        probabilities: P(ok) of each segment, of a classifier; empty for a regressor.
    """

    sequence_score: float | None
    probabilities: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ScoredResponse:
    """A response, what it answers, and its scores by model (`name`, or `name@version`)."""

    prompt: str
    fields: Mapping[str, str]
    response: str
    scores: Mapping[str, ModelScore] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Tasks in the order in which they are to be annotated.

    Attributes:
        tasks: One a question.
        left_out: Responses that found no place: blank, or more than a task compares.
    """

    tasks: list[Task]
    left_out: int


def choose_tasks(responses: Sequence[ScoredResponse], order: Order, limit: int | None = None) -> Chosen:
    """Make a task of the responses to each question; its most telling response is the one to mark.

    Args:
        responses: N responses to any number of questions.
        order: What is told first.
        limit: At most so many tasks.
    """
    urgencies = urgency(responses, order)
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[int]] = defaultdict(list)
    left_out = 0
    for index in np.argsort(-urgencies, kind="stable").tolist():
        one = responses[index]
        group = groups[one.prompt, tuple(sorted(one.fields.items()))]
        known = {responses[other].response for other in group}
        if one.response in known:
            continue
        if one.response.strip() and len(group) < MAX_RESPONSES:
            group.append(index)
        else:
            left_out += 1
    chosen = [group for group in groups.values() if group][:limit]
    return Chosen([_task([responses[index] for index in group]) for group in chosen], left_out)


def urgency(responses: Sequence[ScoredResponse], order: Order) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """How telling each response would be, [N] float64; only their order means something."""
    if order is Order.GIVEN:
        return np.zeros(len(responses))
    if order is Order.CONFIDENCE:
        return np.array([-_confidence(one) for one in responses], dtype=np.float64)
    return _disagreement(responses)


def _confidence(one: ScoredResponse) -> float:
    """The mean of |2 P(ok) - 1| over the segments of every classifier; certain where no classifier was asked."""
    sure = [abs(2 * probability - 1) for score in one.scores.values() for probability in score.probabilities]
    return float(np.mean(sure)) if sure else CERTAIN


def _disagreement(responses: Sequence[ScoredResponse]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """How far apart the models place a response among all the responses they scored, by rank in [0, 1]."""
    ranks: list[list[float]] = [[] for _ in responses]
    for name in sorted({name for one in responses for name in one.scores}):
        given = [
            (index, score.sequence_score)
            for index, one in enumerate(responses)
            if (score := one.scores.get(name)) is not None and score.sequence_score is not None
        ]
        values = np.sort(np.array([value for _, value in given]))
        for index, value in given:
            below, up_to = np.searchsorted(values, value, "left"), np.searchsorted(values, value, "right")
            ranks[index].append(float(below + up_to) / (2 * len(values)))
    return np.array([max(own) - min(own) if own else 0.0 for own in ranks], dtype=np.float64)


def _task(responses: Sequence[ScoredResponse]) -> Task:
    first = responses[0]
    question = first.fields.get(QUESTION) or first.prompt
    return Task.of(question, divide_text(first.fields.get(CONTEXT, "")), [one.response for one in responses])
