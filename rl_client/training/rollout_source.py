"""Where a step's rollout comes from: sampled now, or while the step before trained."""

import time
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedTokenizerBase

from rl_client.rollout.generate import Delivery, generate
from rl_client.rollout.prompts import PromptSampler
from rl_client.rollout.score_stream import Scorer, ScoreStream
from rl_client.rollout.seeds import derive_seed
from rl_client.rollout.stages import Rollout
from rl_client.training.background import Background
from rl_client.training.config import TrainConfig
from rl_client.training.models import PolicyModel
from rl_client.training.optim import autocast
from rl_client.training.ppo_state import PpoState
from rl_client.training.settings_processes import Scoring
from rl_client.training.shards import settle, whole


@dataclass(frozen=True, slots=True)
class SampledRollout:
    """A rollout whose scores are on their way.

    Attributes:
        rollout: The responses.
        scores: Collects their scores.
        policy: As it was when it sampled them.
        generate_s: Seconds that sampling took.
    """

    rollout: Rollout
    scores: ScoreStream
    policy: PolicyModel
    generate_s: float


class RolloutSource:
    """Samples each step's rollout, and has its scores asked for as responses end.

    With `staleness` 0 the policy in training samples when its rollout is asked for. With 1 a copy of it, as it was one
    update ago, samples beside the update. What a step gets depends on the copy's weights, the seed and the step alone.
    """

    def __init__(
        self,
        config: TrainConfig,
        state: PpoState,
        scorer: Scorer,
        tokenizer: PreTrainedTokenizerBase,
        prompts: PromptSampler,
        *,
        sampling: Background,
        scoring: Background,
    ) -> None:
        """Begin with nothing sampled.

        Args:
            config: The run's settings.
            state: Holds the policy, and its copy where rollouts may be stale.
            scorer: Asked for scores.
            tokenizer: The policy's.
            prompts: Says which prompts a step takes.
            sampling: With as many threads as `staleness` says.
            scoring: Where scores are waited for.
        """
        self._config = config
        self._state = state
        self._scorer = scorer
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._sampling = sampling
        self._scoring = scoring
        self._next: Future[SampledRollout] | None = None

    def take(self, step: int) -> SampledRollout:
        """The rollout of a step, sampled now unless `advance` began it.

        Raises:
            RewardClientError: If scores of it could not be had by now.
        """
        asked = self._next or self._sampling.submit(partial(self._sample, step))
        self._next = None
        return asked.result()

    def advance(self, step: int) -> None:
        """Let the copy of the policy catch up, and begin the rollout of the step after this one, the last excepted.

        To be called when everything of this step that may fail for want of scores is done, and before its update.
        """
        if self._state.sampler is None:
            return
        copy_weights(self._state.trainee.policy, self._state.sampler)
        if step < self._config.ppo.steps:
            self._next = self._sampling.submit(partial(self._sample, step + 1))

    def _sample(self, step: int) -> SampledRollout:
        config, pipeline = self._config, self._config.pipeline
        policy = self._state.sampler or self._state.whole.policy
        scores = ScoreStream(self._scorer, self._scoring.submit, step=step)
        begin_s = time.perf_counter()
        # A context of its own: that of the training thread may be in use.
        with autocast(self._state.device, config.precision):
            rollout = generate(
                policy,
                self._tokenizer,
                self._prompts.take(step),
                config.generation,
                seed=derive_seed(config.seed, "generate", step),
                delivery=Delivery(
                    scores.send if config.processes.scoring is Scoring.OWN else _nobody,
                    pipeline.send_share,
                    self._sampling.closing.is_set,
                ),
                share=self._prompts.share,
            )
        return SampledRollout(rollout, scores, policy, time.perf_counter() - begin_s)


def _nobody(_: Rollout) -> None:
    """Scores are asked for when all processes have sampled."""


@torch.no_grad()
def copy_weights(source: PolicyModel, target: PolicyModel) -> None:
    """Give a copy of a policy the weights that the policy has now, gathered if they are divided."""
    settle(source)
    for mine, theirs in zip(
        [*target.parameters(), *target.buffers()], [*source.parameters(), *source.buffers()], strict=True
    ):
        mine.copy_(whole(theirs))
