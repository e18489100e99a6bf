"""Prompts -> sampled responses."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase

from rl_client.rollout.decode import decode_with_offsets
from rl_client.rollout.prompts import pad_prompts
from rl_client.rollout.stages import Prompt, Rollout, TokenBatch
from rl_client.training.config import GenerationSettings
from rl_client.training.models import PolicyModel


@torch.no_grad()
def generate(
    policy: PolicyModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    settings: GenerationSettings,
    *,
    seed: int,
) -> Rollout:
    """Sample responses in one batch.

    `top_k` restricts what is sampled and nothing else: the policy that PPO trains is the softmax at `temperature` over
    the whole vocabulary. The temperature is part of the policy: log-probabilities are taken at it everywhere.

    Args:
        policy: In eval mode.
        tokenizer: The policy's.
        prompts: P of them.
        settings: How to sample.
        seed: The same seed and prompts give the same responses; no other state of chance is read or changed.

    Returns:
        P x samples_per_prompt responses, those of one prompt next to each other, on the CPU.
    """
    prompt_ids, prompt_mask = pad_prompts(prompts, tokenizer.pad_token_id)
    device = next(policy.parameters()).device
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        config = _generation_config(tokenizer, settings)
        ids = policy.sample(prompt_ids.to(device), prompt_mask.to(device), config).cpu()
    mask, finished = mask_after_eos(ids, tokenizer.eos_token_id)
    ids = torch.where(mask, ids, tokenizer.pad_token_id)
    prompt_index = torch.arange(len(prompts)).repeat_interleave(settings.samples_per_prompt)
    decoded = [
        decode_with_offsets(tokenizer, row[:length])
        for row, length in zip(ids.tolist(), mask.sum(dim=1).tolist(), strict=True)
    ]
    return Rollout(
        prompts=tuple(prompts),
        tokens=TokenBatch(prompt_ids, prompt_mask, prompt_index, ids, mask),
        finished=tuple(finished.tolist()),
        texts=tuple(text for text, _ in decoded),
        offsets=tuple(offsets for _, offsets in decoded),
    )


def mask_after_eos(ids: Tensor, eos_id: int) -> tuple[Tensor, Tensor]:
    """Which tokens were sampled, found by the first eos and not by the pad, which may be the same token.

    Args:
        ids: [B, T] int64, anything after the first eos.
        eos_id: Ends a response.

    Returns:
        response_mask: [B, T] bool, True up to the first eos, it included.
        finished: [B] bool, whether there is one.
    """
    is_eos = ids == eos_id
    eos_before = is_eos.cumsum(dim=1) - is_eos.long()
    return eos_before == 0, is_eos.any(dim=1)


def _generation_config(tokenizer: PreTrainedTokenizerBase, settings: GenerationSettings) -> GenerationConfig:
    sampling = (
        {"do_sample": False}
        if settings.greedy
        # top_k 0 and top_p 1 switch transformers' own defaults (50 and 1) off.
        else {"do_sample": True, "temperature": settings.temperature, "top_k": settings.top_k, "top_p": 1.0}
    )
    return GenerationConfig(
        **sampling,
        max_new_tokens=settings.max_new_tokens,
        num_return_sequences=settings.samples_per_prompt,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
