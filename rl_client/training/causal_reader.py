"""Decoder-only networks: GPT-2, Llama, Qwen, SmolLM and their kin."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from rl_client.rollout.sampling import Steering
from rl_client.rollout.stages import TokenBatch


class CausalReader:
    """Reads prompt and response as one sequence, prompts padded on the left so that responses start in one column."""

    shares_prompts = False

    def __init__(self, network: PreTrainedModel) -> None:
        self._network = network
        self._body: Callable[..., Any] = network.base_model
        self._takes_positions = "position_ids" in inspect.signature(network.base_model.forward).parameters

    def states(self, tokens: TokenBatch) -> Tensor:
        """[B, T, d]: the state before each response token, hence the one from which it is predicted."""
        prompt_ids, prompt_mask = align_right(tokens.prompt_ids, tokens.prompt_mask)
        ids = torch.cat([prompt_ids[tokens.prompt_index], tokens.response_ids[:, :-1]], dim=1)
        mask = torch.cat([prompt_mask[tokens.prompt_index], tokens.response_mask[:, :-1]], dim=1)
        inputs: dict[str, Tensor] = {"input_ids": ids, "attention_mask": mask.long()}
        if self._takes_positions:
            inputs["position_ids"] = count_positions(mask)
        states: Tensor = self._body(**inputs, use_cache=False).last_hidden_state
        return states[:, prompt_ids.shape[1] - 1 :]

    def sample(
        self, prompt_ids: Tensor, prompt_mask: Tensor, config: GenerationConfig, steering: Steering = Steering()
    ) -> Tensor:
        """[P * n, T] int64: sampled ids, by Hugging Face `generate` with a key-value cache."""
        ids, mask = align_right(prompt_ids, prompt_mask)
        index = torch.arange(len(ids), device=ids.device).repeat_interleave(steering.samples)
        if steering.written is not None:
            ids = torch.cat([ids, steering.written], dim=1)
            mask = torch.cat([mask, torch.ones_like(steering.written, dtype=torch.bool)], dim=1)
        sequences: Tensor = self._network.generate(
            input_ids=ids[index],
            attention_mask=mask[index].long(),
            generation_config=config,
            logits_processor=steering.processors,
            stopping_criteria=steering.stopping_criteria(ids.shape[1]),
        )
        return sequences[:, ids.shape[1] :]

    def save_memory(self) -> None:
        """Nothing to do: reading uses no cache."""

    def compile(self) -> None:
        """Compile the body for reading, for any lengths."""
        self._body = torch.compile(self._network.base_model, dynamic=True)


def align_right(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move every row's real tokens to its right end, in their order, wherever they stood.

    Args:
        ids: [P, L] int64.
        mask: [P, L] bool, True = a real token.

    Returns:
        ids and mask, both [P, L].
    """
    order = torch.argsort(mask.long(), dim=1, stable=True)
    return ids.gather(1, order), mask.gather(1, order)


def count_positions(mask: Tensor) -> Tensor:
    """[B, L] int64: how many real tokens stand before each, 0 at the padding on the left."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)
