"""Responses -> scores from the service -> rewards on sampled tokens."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import torch

from reward_proto import ErrorCode, ItemResult, ModelInfo, ScoreItem
from rl_client.api import RetryPolicy, RewardClient
from rl_client.api.client import MAX_RUN_CHARS
from rl_client.api.errors import ApiStatusError
from rl_client.api.scoring import refused_score
from rl_client.errors import TooManyFailedScoresError
from rl_client.rollout.local_rewards import RUNTIME, LocalReward
from rl_client.rollout.penalties import penalties_of
from rl_client.rollout.rewards import SourceRewards, place_on_tokens, response_rewards
from rl_client.rollout.shaping import Shaper, make_shapers, segment_rewards
from rl_client.rollout.stages import Rollout, ScoredRollout
from rl_client.training.config import ServiceSettings
from rl_client.training.settings_rewards import PenaltySettings, RewardSettings

REFUSED_SCORES = frozenset(
    {ErrorCode.TOO_LONG, ErrorCode.MISSING_FIELD, ErrorCode.MODEL_FAILED, ErrorCode.DEADLINE_EXCEEDED}
)
"""With these the service refuses a request as a whole where each of its scores failed: those responses have no score.
With any other code it is the service that is at fault, or the request, and the run cannot go on."""

DEFAULT_FAILED_SHARE = ServiceSettings.model_fields["max_failed_share"].default


def open_client(
    service: ServiceSettings, transport: httpx.BaseTransport | None = None, output: Path | None = None
) -> RewardClient:
    """The client that the settings describe.

    Args:
        service: Where the service is and how patiently it is asked.
        transport: An httpx transport in place of the network.
        output: The run's folder, whose path as it is given names the run in the service's ledger.
    """
    return RewardClient(
        service.url,
        api_key=service.api_key,
        client_job=service.client_job,
        client_run=None if output is None else _run_name(output),
        timeout_s=service.timeout_s,
        retry=RetryPolicy(retry_for_s=service.retry_for_s),
        max_items_per_request=service.max_items_per_request,
        transport=transport,
    )


def _run_name(output: Path) -> str:
    """The end of the path that a header may hold."""
    return "".join(character if character.isprintable() else "?" for character in str(output))[-MAX_RUN_CHARS:]


@contextmanager
def open_scorer(
    service: ServiceSettings | None,
    rewards: Sequence[RewardSettings],
    *,
    penalties: PenaltySettings = PenaltySettings(),
    transport: httpx.BaseTransport | None = None,
    output: Path | None = None,
) -> "Iterator[RewardScorer]":
    """The scorer that the settings describe, connected where there is a service; see `RewardScorer`."""
    with ExitStack() as stack:
        client = None if service is None else stack.enter_context(open_client(service, transport, output))
        share = DEFAULT_FAILED_SHARE if service is None else service.max_failed_share
        yield RewardScorer(client, rewards, max_failed_share=share, penalties=penalties)


class RewardScorer:
    """Scores rollouts by pinned versions of the reward models, and by functions of this process."""

    def __init__(
        self,
        client: RewardClient | None,
        rewards: Sequence[RewardSettings],
        *,
        max_failed_share: float,
        penalties: PenaltySettings = PenaltySettings(),
    ) -> None:
        """Pin the versions that the service serves now.

        Args:
            client: Connected to the service; from now on it refuses scores of any other version or runtime. None where
                no served model is asked for.
            rewards: The sources and how their scores become rewards; none asks for every served model's scores alone.
            max_failed_share: How many responses of a batch may go without a score, in [0, 1].
            penalties: What responses pay for their length.

        Raises:
            RewardClientError: If the service cannot be reached or does not serve a model.
            ConfigError: If a shaping does not fit its source, or a function cannot be imported.
        """
        self._client = client
        self._max_failed_share = max_failed_share
        self._penalties = penalties
        self._local = [
            LocalReward(reward, f"rewards.{index}") for index, reward in enumerate(rewards) if reward.function
        ]
        wanted = [reward.model for reward in rewards if reward.model is not None]
        self.models: dict[str, ModelInfo] = {}
        if client is not None and (wanted or not rewards):
            pins = client.pin(wanted or None)
            served = {(info.name, info.version): info for info in client.models()}
            self.models = {name: served[name, pin.version] for name, pin in pins.items()}
        self._references = [f"{name}@{info.version}" for name, info in self.models.items()]
        self._shapers = make_shapers(rewards, self.models)

    @property
    def versions(self) -> dict[str, str]:
        """By source the pinned `version runtime`, which together name the numbers."""
        served = {name: f"{info.version} {info.runtime}" for name, info in self.models.items()}
        return served | {reward.name: f"{reward.version} {RUNTIME}" for reward in self._local}

    def score(self, rollout: Rollout, step: int | None = None) -> ScoredRollout:
        """Score every response by every source and put the rewards on its tokens.

        A response that some source gave no score for, after the client's retries, is marked failed and has no rewards.

        Raises:
            RewardClientError: If the service gave no usable answer within the retry budget.
            TooManyFailedScoresError: If more than `max_failed_share` of the responses failed.
        """
        start = time.perf_counter()
        scored = self.place(rollout, self.request(rollout, step))
        return replace(scored, score_s=time.perf_counter() - start)

    def request(self, rollout: Rollout, step: int | None = None) -> list[ItemResult]:
        """Every source's scores of every response, in order: of the service and, meanwhile, of the functions.

        Raises:
            RewardClientError: If the service gave no usable answer within the retry budget.
        """
        items = []
        for index, (row, text) in enumerate(zip(rollout.rows, rollout.texts, strict=True)):
            prompt = rollout.prompt_of(index)
            # The row makes the id unique when a small prompt set comes round twice in one step.
            item = ScoreItem(id=f"{prompt.id}/{row}", prompt=prompt.text, response=text, fields=dict(prompt.fields))
            items.append(item)
        if not self._local:
            return self._ask(items, step)
        with ThreadPoolExecutor(len(self._local), thread_name_prefix="local-rewards") as pool:
            running = {reward.name: pool.submit(reward.score, rollout) for reward in self._local}
            results = self._ask(items, step)
            local = {name: scores.result() for name, scores in running.items()}
        return [
            ItemResult(id=result.id, scores={**result.scores, **{name: scores[row] for name, scores in local.items()}})
            for row, result in enumerate(results)
        ]

    def place(self, rollout: Rollout, results: Sequence[ItemResult]) -> ScoredRollout:
        """Put rewards on the tokens of responses whose scores are here; see `score`."""
        failed = [any(score.error for score in result.scores.values()) for result in results]
        self._check_failed(results, sum(failed))
        sources = (
            *(self._source(shaper, rollout, results, failed) for shaper in self._shapers),
            *penalties_of(rollout, failed, self._penalties),
        )
        lengths = [len(offsets) for offsets in rollout.offsets]
        rows, width = rollout.tokens.response_mask.shape
        names = [*self.models, *(reward.name for reward in self._local)]
        return ScoredRollout(
            rollout=rollout,
            token_rewards=place_on_tokens(sources, lengths, (rows, width)),
            failed=torch.tensor(failed),
            scores={name: tuple(result.scores[name].sequence_score for result in results) for name in names},
            rewards=response_rewards(sources, failed),
            latencies_s=tuple(self._client.take_latencies_s()) if self._client else (),
            sources=sources,
        )

    def _ask(self, items: Sequence[ScoreItem], step: int | None) -> list[ItemResult]:
        """The service's scores. A request that it refuses for its scores' sake is an error of each of those scores."""
        if self._client is None or not self._references:
            return [ItemResult(id=item.id or "", scores={}) for item in items]
        results: list[ItemResult] = []
        size = self._client.max_items_per_request
        for start in range(0, len(items), size):
            part = items[start : start + size]
            try:
                results += self._client.score(part, list(self._references), step=step)
            except ApiStatusError as error:
                if error.code is None or error.code not in REFUSED_SCORES:
                    raise
                scores = {name: refused_score(info, error) for name, info in self.models.items()}
                results += [ItemResult(id=item.id or "", scores=scores) for item in part]
        return results

    def _source(
        self, shaper: Shaper, rollout: Rollout, results: Sequence[ItemResult], failed: Sequence[bool]
    ) -> SourceRewards:
        segments = tuple(
            () if is_failed else segment_rewards(result.scores[shaper.name], shaper, offsets)
            for result, is_failed, offsets in zip(results, failed, rollout.offsets, strict=True)
        )
        return SourceRewards(shaper.name, shaper.weight, segments)

    def _check_failed(self, results: Sequence[ItemResult], failed: int) -> None:
        if failed <= self._max_failed_share * len(results):
            return
        error = next(score.error for result in results for score in result.scores.values() if score.error)
        raise TooManyFailedScoresError(
            f"{failed} of {len(results)} responses got no score, over the allowed share {self._max_failed_share}; "
            f"the first: {error.code}: {error.message}"
        )
