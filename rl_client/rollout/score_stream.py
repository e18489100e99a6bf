"""Scores asked for while the rollout is still being sampled."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Protocol

from reward_proto import ItemResult
from rl_client.rollout.stages import Rollout, ScoredRollout


class Scorer(Protocol):
    """What a stream needs of a scorer; see `RewardScorer`."""

    def request(self, rollout: Rollout, step: int | None = None) -> list[ItemResult]:
        """Scores of every response, in order."""
        ...

    def place(self, rollout: Rollout, results: list[ItemResult]) -> ScoredRollout:
        """Rewards on tokens."""
        ...


class Submit(Protocol):
    """Has work done by another thread, or at once."""

    def __call__(self, work: Callable[[], list[ItemResult]]) -> "Future[list[ItemResult]]":
        """Its result, once it is there."""
        ...


class ScoreStream:
    """The scores of one rollout: parts are sent as they are sampled, answers put in the order of the responses."""

    def __init__(self, scorer: Scorer, submit: Submit, step: int | None = None) -> None:
        """Nothing is sent yet.

        Args:
            scorer: Asked for each part.
            submit: Has the asking done.
            step: Which step of the run the rollout is for; told to the service.
        """
        self._scorer = scorer
        self._step = step
        self._submit = submit
        self._asked: list[tuple[tuple[int, ...], Future[list[ItemResult]]]] = []
        self._begun_s: float | None = None
        self._answered_s = 0.0

    def send(self, part: Rollout) -> None:
        """Ask for the scores of some responses.

        Args:
            part: Of the rollout, its `rows` known.

        Raises:
            RewardClientError: If an earlier part has failed by now: there is no use in sampling more.
        """
        for _, answer in self._asked:
            if answer.done():
                answer.result()
        if self._begun_s is None:
            self._begun_s = time.perf_counter()
        self._asked.append((part.rows, self._submit(partial(self._ask, part))))

    def answers(self, rollout: Rollout) -> tuple[list[ItemResult], float]:
        """Wait for the answers.

        Args:
            rollout: Of which every response was sent.

        Returns:
            The scores of each response, and the seconds from the first request to the last answer.

        Raises:
            RewardClientError: If the service gave no usable answer within the retry budget.
            ValueError: If a response was not sent.
        """
        results: dict[int, ItemResult] = {}
        for rows, answer in self._asked:
            results |= zip(rows, answer.result(), strict=True)
        if results.keys() != set(rollout.rows):
            raise ValueError(f"{len(results)} responses were sent for scores, of {len(rollout.rows)}")
        asking_s = 0.0 if self._begun_s is None else self._answered_s - self._begun_s
        return [results[row] for row in rollout.rows], asking_s

    def _ask(self, part: Rollout) -> list[ItemResult]:
        results = self._scorer.request(part, self._step)
        self._answered_s = time.perf_counter()
        return results
