"""Responses -> scores from the service -> rewards on sampled tokens."""

import time
from collections.abc import Sequence
from dataclasses import replace

import httpx
import torch

from reward_proto import Granularity, ItemResult, ModelInfo, ModelScore, ScoreItem
from rl_client.algorithms.token_rewards import end_token_index, place_rewards
from rl_client.api import RetryPolicy, RewardClient
from rl_client.errors import TooManyFailedScoresError
from rl_client.rollout.shaping import Shaper, make_shapers, segments_of
from rl_client.rollout.stages import Rollout, ScoredRollout
from rl_client.training.config import ServiceSettings
from rl_client.training.settings_rewards import RewardSettings

Offsets = Sequence[tuple[int, int]]


def open_client(service: ServiceSettings, transport: httpx.BaseTransport | None = None) -> RewardClient:
    """The client that the settings describe.

    Args:
        service: Where the service is and how patiently it is asked.
        transport: An httpx transport in place of the network.
    """
    return RewardClient(
        service.url,
        api_key=service.api_key,
        client_job=service.client_job,
        timeout_s=service.timeout_s,
        retry=RetryPolicy(retry_for_s=service.retry_for_s),
        max_items_per_request=service.max_items_per_request,
        transport=transport,
    )


class RewardScorer:
    """Scores rollouts by pinned versions of the reward models."""

    def __init__(self, client: RewardClient, rewards: Sequence[RewardSettings], *, max_failed_share: float) -> None:
        """Pin the versions that the service serves now.

        Args:
            client: Connected to the service; from now on it refuses scores of any other version or runtime.
            rewards: The models and how their scores become rewards; none asks for every served model's scores alone.
            max_failed_share: How many responses of a batch may go without a score, in [0, 1].

        Raises:
            RewardClientError: If the service cannot be reached or does not serve a model.
            ConfigError: If a shaping does not fit its model.
        """
        self._client = client
        self._max_failed_share = max_failed_share
        pins = client.pin([reward.model for reward in rewards] or None)
        served = {(info.name, info.version): info for info in client.models()}
        self.models: dict[str, ModelInfo] = {name: served[name, pin.version] for name, pin in pins.items()}
        self._references = [f"{name}@{info.version}" for name, info in self.models.items()]
        self._shapers = make_shapers(rewards, self.models)

    @property
    def versions(self) -> dict[str, str]:
        """By model name the pinned `version runtime`, which together name the numbers."""
        return {name: f"{info.version} {info.runtime}" for name, info in self.models.items()}

    def score(self, rollout: Rollout) -> ScoredRollout:
        """Score every response by every model and put the rewards on its tokens.

        A response that some model gave no score for, after the client's retries, is marked failed and has no rewards.

        Raises:
            RewardClientError: If the service gave no usable answer within the retry budget.
            TooManyFailedScoresError: If more than `max_failed_share` of the responses failed.
        """
        start = time.perf_counter()
        scored = self.place(rollout, self.request(rollout))
        return replace(scored, score_s=time.perf_counter() - start)

    def request(self, rollout: Rollout) -> list[ItemResult]:
        """Ask the service for every model's scores of every response, in order; see `RewardClient.score`."""
        items = []
        for index, (row, text) in enumerate(zip(rollout.rows, rollout.texts, strict=True)):
            prompt = rollout.prompt_of(index)
            # The row makes the id unique when a small prompt set comes round twice in one step.
            item = ScoreItem(id=f"{prompt.id}/{row}", prompt=prompt.text, response=text, fields=dict(prompt.fields))
            items.append(item)
        return self._client.score(items, list(self._references))

    def place(self, rollout: Rollout, results: Sequence[ItemResult]) -> ScoredRollout:
        """Put rewards on the tokens of responses whose scores are here; see `score`."""
        failed = [any(score.error for score in result.scores.values()) for result in results]
        self._check_failed(results, sum(failed))
        shape = rollout.tokens.response_mask.shape
        token_rewards = torch.zeros(shape, dtype=torch.float32)
        rewards: dict[str, list[float | None]] = {shaper.name: [] for shaper in self._shapers}
        for row, result in enumerate(results):
            for shaper in self._shapers:
                if failed[row]:
                    rewards[shaper.name].append(None)
                    continue
                offsets = rollout.offsets[row]
                ends, values = segment_rewards(result.scores[shaper.name], shaper, offsets)
                token_rewards[row, : len(offsets)] += place_rewards(len(offsets), ends, values)
                rewards[shaper.name].append(sum(values))
        return ScoredRollout(
            rollout=rollout,
            token_rewards=token_rewards,
            failed=torch.tensor(failed),
            scores={name: tuple(result.scores[name].sequence_score for result in results) for name in self.models},
            rewards={name: tuple(values) for name, values in rewards.items()},
            latencies_s=tuple(self._client.take_latencies_s()),
        )

    def _check_failed(self, results: Sequence[ItemResult], failed: int) -> None:
        if failed <= self._max_failed_share * len(results):
            return
        error = next(score.error for result in results for score in result.scores.values() if score.error)
        raise TooManyFailedScoresError(
            f"{failed} of {len(results)} responses got no score, over the allowed share {self._max_failed_share}; "
            f"the first: {error.code}: {error.message}"
        )


def segment_rewards(score: ModelScore, shaper: Shaper, offsets: Offsets) -> tuple[list[int], list[float]]:
    """The token and the reward of each segment.

    A segment's reward falls on the sampled token that holds its last character; that of a sequence-granularity model on
    the last sampled token, the eos included, also where the response is blank and there is a score without a segment.

    Args:
        score: Not an error.
        shaper: That of the score's model.
        offsets: T half-open code-point ranges, one a sampled token.

    Returns:
        ends: S token indices in [0, T).
        rewards: S rewards, weights included.

    Source: arXiv 2306.01693.
    """
    last = len(offsets) - 1
    segments = segments_of(score)
    if score.granularity is Granularity.SEQUENCE:
        if segments:
            return [last], [shaper.reward(segments[-1].score, segments[-1].label)]
        if score.sequence_score is not None:
            return [last], [shaper.reward(score.sequence_score, None)]
        return [], []
    ends = [end_token_index(offsets, segment.end) for segment in segments]
    return ends, [shaper.reward(segment.score, segment.label) for segment in segments]
