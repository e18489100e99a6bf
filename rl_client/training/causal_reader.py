"""Decoder-only networks: GPT-2, Llama, Qwen, SmolLM and their kin."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, GenerationConfig, PreTrainedModel

from rl_client.rollout.sampling import Steering
from rl_client.rollout.stages import TokenBatch
from rl_client.training.prompt_cache import PromptRecord, can_share_prompts


class CausalReader:
    """Reads prompts padded on the left, so that responses start in one column, and each prompt once if it can."""

    def __init__(self, network: PreTrainedModel) -> None:
        self.shares_prompts = can_share_prompts(network)
        self._network = network
        self._body: Callable[..., Any] = network.base_model
        self._takes_positions = "position_ids" in inspect.signature(network.base_model.forward).parameters

    def states(self, tokens: TokenBatch) -> Tensor:
        """[B, T, d]: the state before each response token, hence the one from which it is predicted."""
        prompt_ids, prompt_mask = align_right(tokens.prompt_ids, tokens.prompt_mask)
        index, written, real = tokens.prompt_index, tokens.response_ids[:, :-1], tokens.response_mask[:, :-1]
        mask = torch.cat([prompt_mask[index], real], dim=1)
        if not self.shares_prompts or len(index) == len(prompt_ids):
            ids = torch.cat([prompt_ids[index], written], dim=1)
            return self._read(self._body, ids, mask)[:, prompt_ids.shape[1] - 1 :]
        prompts = PromptRecord()
        last = self._read(self._body, prompt_ids, prompt_mask, prompts)[index, -1:]
        if not written.shape[1]:
            return last
        return torch.cat([last, self._read(self._body, written, mask, prompts.for_responses(index))], dim=1)

    def sample(
        self, prompt_ids: Tensor, prompt_mask: Tensor, config: GenerationConfig, steering: Steering = Steering()
    ) -> Tensor:
        """[P * n, T] int64: sampled ids, by Hugging Face `generate` with a key-value cache."""
        ids, mask = align_right(prompt_ids, prompt_mask)
        samples = steering.samples
        if steering.written is not None:
            ids = torch.cat([ids, steering.written], dim=1)
            mask = torch.cat([mask, torch.ones_like(steering.written, dtype=torch.bool)], dim=1)
        begun: dict[str, Cache] = {}
        if self.shares_prompts and samples > 1 and ids.shape[1] > 1:
            # All but the last token: generate() draws after what it reads itself.
            cache = begun["past_key_values"] = DynamicCache(config=self._network.config)
            self._read(self._network.base_model, ids[:, :-1], mask[:, :-1], cache)
            cache.batch_repeat_interleave(samples)
        sequences: Tensor = self._network.generate(
            input_ids=ids.repeat_interleave(samples, dim=0),
            attention_mask=mask.long().repeat_interleave(samples, dim=0),
            generation_config=config,
            **begun,
            logits_processor=steering.processors,
            stopping_criteria=steering.stopping_criteria(ids.shape[1]),
        )
        return sequences[:, ids.shape[1] :]

    def save_memory(self) -> None:
        """Nothing to do: what prompts leave in a cache may be computed again."""

    def stay_within_layers(self) -> None:
        """Read a prompt with each response, in one pass: apart it would give gradients past its layers' outputs."""
        self.shares_prompts = False

    def compile(self) -> None:
        """Compile the body for reading, for any lengths."""
        self._body = torch.compile(self._network.base_model, dynamic=True)

    def _read(self, body: Callable[..., Any], ids: Tensor, mask: Tensor, cache: Cache | None = None) -> Tensor:
        """[B, t, d] last hidden states of ids [B, t]; the mask [B, L + t] is also of the L tokens in the cache."""
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask.long()}
        if self._takes_positions:
            inputs["position_ids"] = count_positions(mask)[:, -ids.shape[1] :]
        if cache is not None:
            inputs["past_key_values"] = cache
        states: Tensor = body(**inputs, use_cache=cache is not None).last_hidden_state
        return states


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
