"""What flows from one stage of a step to the next, each made by the stage before.

`Rollout` (generate) -> `ScoredRollout` (score) -> `TrainBatch` (training.experience).
Letters: P prompts of a step, B responses, L prompt tokens, T response tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rl_client.rollout.rewards import SourceRewards


@dataclass(frozen=True, slots=True)
class Prompt:
    """One input of the policy.

    Attributes:
        id: Names it in files and in requests.
        text: What the policy reads, before a chat template; also what the reward models read as the prompt.
        fields: Named inputs for the reward models' templates.
        input_ids: Tokens of `text`, special tokens and a chat template included.
        cut_tokens: How many tokens were cut from the end to fit the limit.
    """

    id: str
    text: str
    fields: Mapping[str, str]
    input_ids: tuple[int, ...]
    cut_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Prompts and responses as padded tensors; several responses share one row of prompt.

    Attributes:
        prompt_ids: [P, L] int64.
        prompt_mask: [P, L] bool, True = a real token.
        prompt_index: [B] int64, the row of `prompt_ids` that each response answers.
        response_ids: [B, T] int64; any id where `response_mask` is False.
        response_mask: [B, T] bool, True = a sampled token, the eos included. Real tokens stand to the left.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    prompt_index: Tensor
    response_ids: Tensor
    response_mask: Tensor

    def select(self, rows: Tensor) -> "TokenBatch":
        """The responses of these rows [b] with the prompts they need, padding trimmed to the longest of each."""
        prompts, prompt_index = torch.unique(self.prompt_index[rows], return_inverse=True)
        prompt_tokens = _longest(self.prompt_mask[prompts])
        response_tokens = _longest(self.response_mask[rows])
        return TokenBatch(
            prompt_ids=self.prompt_ids[prompts, :prompt_tokens],
            prompt_mask=self.prompt_mask[prompts, :prompt_tokens],
            prompt_index=prompt_index,
            response_ids=self.response_ids[rows, :response_tokens],
            response_mask=self.response_mask[rows, :response_tokens],
        )

    def to(self, device: torch.device) -> "TokenBatch":
        """The same batch on a device."""
        return TokenBatch(
            self.prompt_ids.to(device),
            self.prompt_mask.to(device),
            self.prompt_index.to(device),
            self.response_ids.to(device),
            self.response_mask.to(device),
        )

    def __len__(self) -> int:
        return int(self.response_ids.shape[0])


@dataclass(frozen=True, slots=True)
class Rollout:
    """Sampled responses.

    Attributes:
        prompts: The P prompts.
        tokens: Their tokens and the B responses'.
        finished: For each response, whether it ended by eos; False = cut off at the length limit.
        texts: The B responses as text.
        offsets: For each response, for each sampled token, its half-open code points in the text.
        part_of: Of a part of a step's responses, the row of each in the whole; None for the whole.
    """

    prompts: tuple[Prompt, ...]
    tokens: TokenBatch
    finished: tuple[bool, ...]
    texts: tuple[str, ...]
    offsets: tuple[tuple[tuple[int, int], ...], ...]
    part_of: tuple[int, ...] | None = None

    @property
    def rows(self) -> tuple[int, ...]:
        """The row of each response in the step's whole rollout."""
        return tuple(range(len(self.texts))) if self.part_of is None else self.part_of

    def prompt_of(self, row: int) -> Prompt:
        """The prompt that response `row` answers."""
        return self.prompts[int(self.tokens.prompt_index[row])]


@dataclass(frozen=True, slots=True)
class ScoredRollout:
    """Responses with the rewards that their scores earn.

    Attributes:
        rollout: What was scored.
        token_rewards: [B, T] float32, weights included, KL not; 0 where no segment ends and for a failed response.
        failed: [B] bool, True = some model gave no score, so that the response must not be trained on.
        scores: For each model, for each response, its sequence score; None where it has none.
        rewards: For each model, for each response, the sum of its shaped and weighted rewards; None where it failed.
        latencies_s: Seconds that each request to the service took.
        score_s: Seconds from the first request to the last reward.
        sources: What the rewards are made of: every source's segments, with their scores before and after shaping.
    """

    rollout: Rollout
    token_rewards: Tensor
    failed: Tensor
    scores: Mapping[str, tuple[float | None, ...]]
    rewards: Mapping[str, tuple[float | None, ...]]
    latencies_s: tuple[float, ...] = ()
    score_s: float = 0.0
    sources: tuple[SourceRewards, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainBatch:
    """What a PPO update reads; every tensor but `tokens` is [B, T] float32 and 0 where the mask is False.

    Attributes:
        tokens: Prompts and sampled ids.
        old_logprobs: Of the sampled tokens under the policy that sampled them.
        old_values: The value model's estimates at that time.
        advantages: What the policy's loss weighs each token by.
        returns: The value model's targets.
    """

    tokens: TokenBatch
    old_logprobs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor

    def select(self, rows: Tensor) -> "TrainBatch":
        """The responses of these rows [b], padding trimmed."""
        tokens = self.tokens.select(rows)
        width = tokens.response_ids.shape[1]
        return TrainBatch(
            tokens,
            self.old_logprobs[rows, :width],
            self.old_values[rows, :width],
            self.advantages[rows, :width],
            self.returns[rows, :width],
        )


def _longest(mask: Tensor) -> int:
    return int(mask.sum(dim=1).max())
