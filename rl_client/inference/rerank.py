"""Best of n whole responses, or of n continuations after each segment, by the served rewards."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from rl_client.api import RewardClient
from rl_client.inference.choose import choose_best
from rl_client.inference.settings import GenerateConfig, Selection
from rl_client.rollout.decode import decode_with_offsets
from rl_client.rollout.prompts import pad_prompts, pad_rows
from rl_client.rollout.sampling import Steering, logits_processors
from rl_client.rollout.score import RewardScorer
from rl_client.rollout.seeds import derive_seed
from rl_client.rollout.stages import Prompt, Rollout, TokenBatch
from rl_client.training.models import PolicyModel

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One decision among candidates.

    Attributes:
        text: What the response is after it.
        rewards: Of every candidate's text so far, in the order of sampling; None where a score failed.
        chosen: The number of the one that was taken.
    """

    text: str
    rewards: tuple[float | None, ...]
    chosen: int

    @property
    def reward(self) -> float:
        """Of the one that was taken."""
        found = self.rewards[self.chosen]
        assert found is not None  # noqa: S101  # `choose_best` takes no other
        return found


@dataclass(frozen=True, slots=True)
class Chosen:
    """A response and how it came about.

    Attributes:
        prompt: What it answers.
        rollout: The one response, as a rollout of one row.
        choices: Every decision, in order; one for a whole response.
    """

    prompt: Prompt
    rollout: Rollout
    choices: tuple[Choice, ...]


class Reranker:
    """Samples candidates and keeps the best, a prompt at a time, so that what one gets depends on no other."""

    def __init__(
        self,
        policy: PolicyModel,
        tokenizer: PreTrainedTokenizerBase,
        client: RewardClient,
        scorer: RewardScorer,
        config: GenerateConfig,
    ) -> None:
        """Prepare to choose.

        Args:
            policy: In eval mode.
            tokenizer: The policy's.
            client: Asked where segments end.
            scorer: Must let every score fail: a failed candidate is left out here.
            config: How to sample and what to choose.
        """
        self._policy = policy
        self._tokenizer = tokenizer
        self._client = client
        self._scorer = scorer
        self._config = config

    def answer(self, prompt: Prompt) -> Chosen:
        """Write one response.

        Raises:
            TooManyFailedScoresError: If at some choice no candidate got a score.
            RewardClientError: If the service gave no usable answer within the retry budget.
        """
        limit = self._config.generation.max_new_tokens
        by_segment = self._config.select is Selection.SEGMENT
        written: Ids = ()
        choices: list[Choice] = []
        while True:
            left = limit - len(written)
            candidates = self._sample(prompt, written, self._longest(left))
            if by_segment:
                candidates = [self._one_segment(len(written), ids) for ids in candidates]
            rollout = make_rollout(prompt, candidates, self._tokenizer)
            scored = self._scorer.score(rollout)
            totals, failed = scored.token_rewards.sum(dim=1).tolist(), scored.failed.tolist()
            rewards = tuple(None if fault else total for total, fault in zip(totals, failed, strict=True))
            best = choose_best(rewards, prompt.id)
            choices.append(Choice(rollout.texts[best], rewards, best))
            written = candidates[best]
            if not by_segment or rollout.finished[best] or len(written) >= limit:
                return Chosen(prompt, make_rollout(prompt, [written], self._tokenizer), tuple(choices))

    def _longest(self, left: int) -> int:
        whole = self._config.select is Selection.RESPONSE
        return left if whole else min(left, self._config.max_segment_tokens)

    def _sample(self, prompt: Prompt, written: Ids, max_new_tokens: int) -> list[Ids]:
        """Continuations of what is written, that included, each up to its first eos."""
        settings, tokenizer = self._config.generation, self._tokenizer
        device = next(self._policy.parameters()).device
        seed = derive_seed(self._config.seed, "candidates", prompt.id, len(written))
        prompt_ids, prompt_mask = pad_prompts([prompt], tokenizer.pad_token_id)
        ids = self._policy.sample(
            prompt_ids.to(device),
            prompt_mask.to(device),
            GenerationConfig(
                do_sample=False,
                max_new_tokens=max_new_tokens,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            ),
            Steering(
                settings.samples_per_prompt,
                logits_processors(settings, seed, device),
                written=torch.tensor([written], dtype=torch.long, device=device) if written else None,
            ),
        )
        return [written + _until_eos(row, tokenizer.eos_token_id) for row in ids.tolist()]

    def _one_segment(self, written_tokens: int, ids: Ids) -> Ids:
        """A continuation without what follows its first segment."""
        text, offsets = decode_with_offsets(self._tokenizer, ids)
        before = offsets[written_tokens - 1][1] if written_tokens else 0
        spans = self._client.segment(text, self._config.granularity).segments if text.strip() else []
        return ids[: tokens_of_segment(offsets, spans, before)]


def tokens_of_segment(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]], before: int) -> int:
    """How many tokens hold the text up to the end of its first new segment.

    Args:
        offsets: [T] half-open code points of each token.
        spans: Half-open code points of each segment.
        before: How many code points were there before.

    Returns:
        T where the first new segment is the last of all: its end is not known, or is the response's.
    """
    new = [end for _, end in spans if end > before]
    if len(new) < 2:
        return len(offsets)
    return sum(1 for start, _ in offsets if start < new[0])


def make_rollout(prompt: Prompt, candidates: Sequence[Ids], tokenizer: PreTrainedTokenizerBase) -> Rollout:
    """Candidates for one prompt as a rollout, finished where the last token is the eos."""
    decoded = [decode_with_offsets(tokenizer, ids) for ids in candidates]
    prompt_ids, prompt_mask = pad_prompts([prompt], tokenizer.pad_token_id)
    response_ids, response_mask = pad_rows(candidates, tokenizer.pad_token_id)
    index = torch.zeros(len(candidates), dtype=torch.long)
    return Rollout(
        prompts=(prompt,),
        tokens=TokenBatch(prompt_ids, prompt_mask, index, response_ids, response_mask),
        finished=tuple(ids[-1] == tokenizer.eos_token_id for ids in candidates),
        texts=tuple(text for text, _ in decoded),
        offsets=tuple(offsets for _, offsets in decoded),
    )


def _until_eos(ids: Sequence[int], eos_id: int) -> Ids:
    return tuple(ids[: ids.index(eos_id) + 1]) if eos_id in ids else tuple(ids)
