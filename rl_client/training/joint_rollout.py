"""A rollout that several processes sample, score and read, each its part.

From the advantages on every process has the whole and computes the same from it as a single one would: whitening,
KL, running statistics and metrics need no formula of their own. What is sent is small: tokens, scores, and a few
numbers for each token.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from reward_proto import ItemResult
from rl_client.errors import ConfigError, VersionChangedError
from rl_client.rollout.joining import join_rollouts, join_rows
from rl_client.rollout.score_stream import Scorer
from rl_client.rollout.stages import Rollout, ScoredRollout
from rl_client.training.config import TrainConfig
from rl_client.training.experience import Estimates, spread_tokens
from rl_client.training.processes import Processes
from rl_client.training.rollout_source import SampledRollout
from rl_client.training.settings_processes import Scoring

COLUMNS = ("logprobs", "ref_logprobs", "values", "entropy")


class Source(Protocol):
    """What gives a process its own rollouts; see `RolloutSource`."""

    def take(self, step: int) -> SampledRollout:
        """The rollout of a step."""
        ...


class JointRollout:
    """One step's rollout.

    Attributes:
        sampled: The responses to this process's prompts.
        mine: Their rollout.
        whole: That of all processes.
    """

    def __init__(self, processes: Processes, source: Source, step: int, scoring: Scoring = Scoring.OWN) -> None:
        """Wait until all have sampled.

        Args:
            processes: Who samples.
            source: Gives the responses to this process's prompts, their scores asked for if each asks for its own.
            step: Of the run.
            scoring: Whether each does, or the main process asks for all now.

        Raises:
            RewardClientError: If scores of this process's responses could not be had by now.
            OtherProcessError: If sampling failed in another process.
        """
        self._processes = processes
        self._scoring = scoring
        taken: list[SampledRollout] = []

        def take() -> Rollout:
            taken.append(source.take(step))
            return taken[0].rollout

        parts = processes.exchange(take)
        self.sampled, self.mine, self.whole = taken[0], taken[0].rollout, join_rollouts(parts)
        self._responses = [len(part.texts) for part in parts]
        self._probed = torch.zeros_like(self.whole.tokens.response_mask)
        if scoring is Scoring.GATHERED and processes.is_main:
            self.sampled.scores.send(self.whole)

    def probe(self, limit: int) -> Tensor:
        """This process's part of the tokens at which a single process would compare whole distributions."""
        width = self.mine.tokens.response_mask.shape[1]
        self._probed = spread_tokens(self.whole.tokens.response_mask, limit)
        mine = torch.split(self._probed, self._responses)[self._processes.rank]
        return mine[:, :width].to(self._processes.device)

    def estimate(self, work: Callable[[], Estimates]) -> Estimates:
        """What the models say of all responses.

        Args:
            work: Gives it of this process's.

        Raises:
            OtherProcessError: If it failed in another process.
        """
        if self._processes.count == 1:
            return work()
        parts = self._processes.exchange(lambda: _to_cpu(work()))
        columns = {name: join_rows([getattr(part, name) for part in parts]) for name in COLUMNS}
        return Estimates(
            **{name: column.to(self._processes.device) for name, column in columns.items()},
            exact_kl=self._exact_kl([part.exact_kl for part in parts]),
        )

    def _exact_kl(self, means: Sequence[float | None]) -> float | None:
        """The mean over all probed tokens, of each process's; times the mean length of a response, as theirs are."""
        masks = torch.split(self.whole.tokens.response_mask, self._responses)
        probed = torch.split(self._probed, self._responses)
        total = 0.0
        for mean, mask, probe in zip(means, masks, probed, strict=True):
            if mean is None:
                return None
            if bool(probe.any()):
                total += mean / _mean_length(mask) * float(probe.sum())
        return total / float(self._probed.sum()) * _mean_length(self.whole.tokens.response_mask)

    def scored(self, scorer: Scorer) -> ScoredRollout:
        """Rewards of all responses.

        Args:
            scorer: The one that was asked.

        Raises:
            RewardClientError: If the service gave this process no usable answer within the retry budget.
            OtherProcessError: If it gave another process none.
            TooManyFailedScoresError: If more responses than allowed, of all processes, got no score.
        """
        everyone = self._processes.exchange(self._answers)
        start = time.perf_counter()
        scored = scorer.place(self.whole, [result for results, _ in everyone for result in results])
        latencies = self._processes.exchange(lambda: scored.latencies_s)
        asking_s = max(seconds for _, seconds in everyone)
        return replace(
            scored,
            latencies_s=tuple(latency for part in latencies for latency in part),
            score_s=asking_s + time.perf_counter() - start,
        )

    def _answers(self) -> tuple[list[ItemResult], float]:
        if self._scoring is Scoring.OWN:
            return self.sampled.scores.answers(self.mine)
        return self.sampled.scores.answers(self.whole) if self._processes.is_main else ([], 0.0)


def check_shares(config: TrainConfig, processes: Processes) -> None:
    """Check that every process has something to sample.

    Raises:
        ConfigError: If a step has fewer prompts than there are processes.
    """
    prompts = config.ppo.prompts_per_step
    if prompts < processes.count:
        raise ConfigError(
            "settings",
            [f"ppo.prompts_per_step: {prompts} prompts for {processes.count} processes; each needs one of its own"],
        )


def check_versions(versions: Mapping[str, str], processes: Processes) -> None:
    """Check that all processes are served by the same reward models.

    Raises:
        VersionChangedError: If an alias moved while they connected.
    """
    for rank, other in enumerate(processes.exchange(lambda: dict(versions))):
        if other != dict(versions):
            raise VersionChangedError(
                f"process {rank} is served {other}, and process {processes.rank} {dict(versions)}"
            )


def _to_cpu(estimates: Estimates) -> Estimates:
    return replace(estimates, **{name: getattr(estimates, name).cpu() for name in COLUMNS})


def _mean_length(response_mask: Tensor) -> float:
    return float(response_mask.sum(dim=1).float().mean())
