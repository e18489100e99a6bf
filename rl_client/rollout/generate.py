"""Prompts -> sampled responses."""

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase

from rl_client.rollout.joining import Share
from rl_client.rollout.prompts import pad_prompts
from rl_client.rollout.responses import ResponseRows
from rl_client.rollout.sampling import Steering, logits_processors
from rl_client.rollout.seeds import derive_seed
from rl_client.rollout.stages import Prompt, Rollout
from rl_client.training.config import GenerationSettings
from rl_client.training.models import PolicyModel


def _nobody(_: Rollout) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Delivery:
    """Who is told of responses while others are still being sampled.

    Attributes:
        on_part: Called with responses that have ended, each once, in any order.
        share: It is called when so large a share of a batch has ended and was not delivered, in (0, 1], and when the
            batch is through.
        should_stop: Asked after each token; True gives the sampling up.
    """

    on_part: Callable[[Rollout], None] = _nobody
    share: float = 1.0
    should_stop: Callable[[], bool] = _never


@torch.no_grad()
def generate(
    policy: PolicyModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    settings: GenerationSettings,
    *,
    seed: int,
    delivery: Delivery = Delivery(),
    share: Share | None = None,
) -> Rollout:
    """Sample responses.

    `top_k` restricts what is sampled and nothing else: the policy that PPO trains is the softmax at `temperature` over
    the whole vocabulary. The temperature is part of the policy: log-probabilities are taken at it everywhere.

    Args:
        policy: In eval mode.
        tokenizer: The policy's.
        prompts: P of them.
        settings: How to sample.
        seed: The same seed and prompts give the same responses; no other state of chance is read or changed.
        delivery: Who is told of responses before all are there.
        share: Which of a step's prompts these are, if other processes sample the rest by the same seed. What is drawn
            is then what one process would draw for them, unless `batch_tokens` divides them otherwise.

    Returns:
        P x samples_per_prompt responses, those of one prompt next to each other, on the CPU.

    Raises:
        CancelledError: If `delivery.should_stop` said so.
    """
    samples = settings.samples_per_prompt
    responses = ResponseRows(prompts, tokenizer, samples)
    device = next(policy.parameters()).device
    seed, noise_rows = _noise(share, settings, seed)
    for index, numbers in enumerate(divide_prompts(prompts, settings)):
        prompt_ids, prompt_mask = pad_prompts([prompts[number] for number in numbers], tokenizer.pad_token_id)
        rows = [number * samples + sample for number in numbers for sample in range(samples)]
        ended = _EndedRows(rows, responses, tokenizer.eos_token_id, delivery)
        ids = policy.sample(
            prompt_ids.to(device),
            prompt_mask.to(device),
            _generation_config(tokenizer, settings),
            Steering(
                samples, logits_processors(settings, derive_seed(seed, "batch", index), device, noise_rows), ended
            ),
        )
        ended.deliver_rest(ids)
    return responses.whole()


def divide_prompts(prompts: Sequence[Prompt], settings: GenerationSettings) -> list[list[int]]:
    """Which prompts are sampled together.

    Args:
        prompts: P of them.
        settings: A batch holds at most `batch_tokens`, or a single prompt: of each sample the longest prompt and
            `max_new_tokens`, as its caches do.

    Returns:
        Numbers of prompts, each once; without `batch_tokens` all in one batch, else those of like length together.
    """
    numbers = list(range(len(prompts)))
    if settings.batch_tokens is None:
        return [numbers]
    batches: list[list[int]] = []
    for number in sorted(numbers, key=lambda number: len(prompts[number].input_ids)):
        tokens = settings.samples_per_prompt * (len(prompts[number].input_ids) + settings.max_new_tokens)
        if not batches or (len(batches[-1]) + 1) * tokens > settings.batch_tokens:
            batches.append([])
        batches[-1].append(number)
    return batches


class _EndedRows:
    """Watches a batch and delivers its responses as they end."""

    def __init__(self, rows: Sequence[int], responses: ResponseRows, eos_id: int, delivery: Delivery) -> None:
        self._rows = rows
        self._responses = responses
        self._eos_id = eos_id
        self._delivery = delivery
        self._ended = torch.zeros(len(rows), dtype=torch.bool)
        self._delivered = torch.zeros(len(rows), dtype=torch.bool)

    def __call__(self, ids: Tensor) -> None:
        if self._delivery.should_stop():
            raise CancelledError("sampling was given up")
        self._ended |= (ids[:, -1] == self._eos_id).cpu()
        waiting = self._ended & ~self._delivered
        if int(waiting.sum()) >= self._delivery.share * len(self._rows):
            self._deliver(waiting, ids)

    def deliver_rest(self, ids: Tensor) -> None:
        """Deliver what was not: the batch is through."""
        if not bool(self._delivered.all()):
            self._deliver(~self._delivered, ids)

    def _deliver(self, chosen: Tensor, ids: Tensor) -> None:
        self._delivered |= chosen
        rows = [row for row, is_chosen in zip(self._rows, chosen.tolist(), strict=True) if is_chosen]
        self._delivery.on_part(self._responses.add(rows, ids[chosen.to(ids.device)]))


def _noise(share: Share | None, settings: GenerationSettings, seed: int) -> tuple[int, tuple[int, int] | None]:
    """The seed, and which rows of its noise are these prompts'; no two processes have draws in common."""
    if share is None or share.count == share.total:
        return seed, None
    if settings.batch_tokens is not None:
        return derive_seed(seed, "first prompt", share.first), None
    samples = settings.samples_per_prompt
    return seed, (share.first * samples, share.total * samples)


def _generation_config(tokenizer: PreTrainedTokenizerBase, settings: GenerationSettings) -> GenerationConfig:
    return GenerationConfig(
        do_sample=False,  # chance comes in by the logits, see `sampling`
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
