"""Encoder-decoder networks: T5, BART and their kin."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    PreTrainedModel,
    T5ForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutput

from rl_client.rollout.sampling import Steering
from rl_client.rollout.stages import TokenBatch


class Seq2SeqReader:
    """Encodes each prompt once for all of its responses."""

    shares_prompts = True

    def __init__(self, network: PreTrainedModel) -> None:
        self._network = network
        self._encoder: Callable[..., Any] = network.get_encoder()
        self._decoder: Callable[..., Any] = network.get_decoder()
        self._shares_projections = isinstance(network, T5ForConditionalGeneration)

    def states(self, tokens: TokenBatch) -> Tensor:
        """[B, T, d]: the decoder's last hidden states from which each response token is predicted."""
        source = self._encode(self._encoder, tokens.prompt_ids, tokens.prompt_mask, tokens.prompt_index)
        states: Tensor = self._decoder(
            input_ids=_shift_right(tokens.response_ids, self._network.config.decoder_start_token_id),
            encoder_hidden_states=source.states,
            encoder_attention_mask=source.mask,
            past_key_values=source.keys_and_values,
            use_cache=False,
        ).last_hidden_state
        return states

    def sample(
        self, prompt_ids: Tensor, prompt_mask: Tensor, config: GenerationConfig, steering: Steering = Steering()
    ) -> Tensor:
        """[P * n, T] int64: sampled ids, by Hugging Face `generate` with a key-value cache."""
        config.decoder_start_token_id = self._network.config.decoder_start_token_id
        index = torch.arange(len(prompt_ids), device=prompt_ids.device).repeat_interleave(steering.samples)
        source = self._encode(self._network.get_encoder(), prompt_ids, prompt_mask, index)
        cache = source.keys_and_values
        if cache is None:
            # Given here because generate() would size a cache by the encoder's depth, which may not be the decoder's.
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        begun = torch.full_like(prompt_ids[:, :1], config.decoder_start_token_id)
        if steering.written is not None:
            begun = torch.cat([begun, steering.written], dim=1)
        sequences: Tensor = self._network.generate(
            encoder_outputs=BaseModelOutput(source.states),
            attention_mask=source.mask,
            decoder_input_ids=begun[index],
            generation_config=config,
            past_key_values=cache,
            logits_processor=steering.processors,
            stopping_criteria=steering.stopping_criteria(begun.shape[1]),
        )
        return sequences[:, begun.shape[1] :]

    def save_memory(self) -> None:
        """Let each decoder layer project the encoder's states by itself: a recomputed one would write a cache twice."""
        self._shares_projections = False

    def stay_within_layers(self) -> None:
        """Let each decoder layer project the encoder's states by itself."""
        self._shares_projections = False

    def compile(self) -> None:
        """Compile encoder and decoder for reading, for any lengths."""
        self._encoder = torch.compile(self._network.get_encoder(), dynamic=True)
        self._decoder = torch.compile(self._network.get_decoder(), dynamic=True)

    def _encode(
        self, encoder: Callable[..., Any], prompt_ids: Tensor, prompt_mask: Tensor, prompt_index: Tensor
    ) -> "_Source":
        states = encoder(input_ids=prompt_ids, attention_mask=prompt_mask).last_hidden_state
        mask = prompt_mask[prompt_index]
        if len(prompt_index) == len(states) or not self._shares_projections:
            return _Source(states.index_select(0, prompt_index), mask, None)
        keys_and_values = _project_once(self._network, states, prompt_index)
        return _Source(states.detach().index_select(0, prompt_index), mask, keys_and_values)


@dataclass(frozen=True, slots=True)
class _Source:
    """What the decoder attends to, a row for each response.

    Attributes:
        states: [B, L, d] the encoder's states; without a gradient when `keys_and_values` carries it.
        mask: [B, L] bool, True = a real token.
        keys_and_values: Of the states, for every layer; None leaves it to the decoder to make them.
    """

    states: Tensor
    mask: Tensor
    keys_and_values: EncoderDecoderCache | None


def _project_once(network: T5ForConditionalGeneration, states: Tensor, prompt_index: Tensor) -> EncoderDecoderCache:
    """Cross-attention keys and values, computed once a prompt; the decoder by itself would do so once a response.

    Where prompts are longer than responses these projections are the larger part of the decoder's work.
    """
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    for layer, block in enumerate(network.decoder.block):
        attention = block.layer[1].EncDecAttention
        shape = (len(prompt_index), states.shape[1], attention.n_heads, attention.key_value_proj_dim)
        keys, values = (
            projection(states).index_select(0, prompt_index).view(shape).transpose(1, 2)
            for projection in (attention.k, attention.v)
        )
        cache.cross_attention_cache.update(keys, values, layer)
        cache.is_updated[layer] = True
    return cache


def _shift_right(ids: Tensor, start_id: int) -> Tensor:
    return torch.cat([torch.full_like(ids[:, :1], start_id), ids[:, :-1]], dim=1)
