"""Keys and values of prompts, made once a prompt and read by all of its responses, in decoder-only networks."""

import inspect
from typing import Any

from torch import Tensor, cat
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

SHAREABLE_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)
"""What a layer may remember: keys and values of each token. A recurrent state could not be masked for left padding."""


def can_share_prompts(network: PreTrainedModel) -> bool:
    """Whether a decoder's layers remember nothing but keys and values, and take them from outside."""
    takes_cache = "past_key_values" in inspect.signature(network.base_model.forward).parameters
    return takes_cache and all(type(layer) in SHAREABLE_LAYERS for layer in DynamicCache(config=network.config).layers)


class PromptRecord(Cache):  # type: ignore[misc]
    """Takes down what the layers make of prompts, with its gradient."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=_Recorded)

    def for_responses(self, prompt_index: Tensor) -> Cache:
        """What the layers read before responses.

        Args:
            prompt_index: [B] int64, the prompt of each response.
        """
        return Cache(layers=[_Prefix(layer, prompt_index) for layer in self.layers])


class _Recorded(DynamicLayer):  # type: ignore[misc]
    """Keeps the last keys and values given, so that a layer that is computed again may give them again."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values as they are: nothing stands before a prompt."""
        self.keys, self.values, self.is_initialized = key_states, value_states, True
        return key_states, value_states


class _Prefix(DynamicLayer):  # type: ignore[misc]
    """A prompt's keys and values in front of a response's, which are not kept: nothing is read after them."""

    def __init__(self, prompts: "_Recorded", prompt_index: Tensor) -> None:
        super().__init__()
        self.keys = prompts.keys.index_select(0, prompt_index)
        self.values = prompts.values.index_select(0, prompt_index)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """[B, heads, L + t, d_head]: the prompt's, then the response's."""
        return cat([self.keys, key_states], dim=-2), cat([self.values, value_states], dim=-2)
