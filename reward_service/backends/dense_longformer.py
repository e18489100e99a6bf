"""Longformer's attention over a whole matrix: the same numbers, without its chunks, its padding and their limits.

transformers cuts an input into overlapping chunks after padding it to a multiple of the window, 512 tokens for the
published checkpoints. The chunks' views cannot be exported to ONNX, and a short input is computed as a long one.
"""

from typing import Any

import torch
from torch import Tensor, nn

MODEL_TYPE = "longformer"


class DenseAttention(nn.Module):
    """`LongformerSelfAttention` as one masked matrix; it shares that module's weights.

    A token sees the tokens within half a window on each side, and the first token where that one is global, which it
    is in sequence classifiers; a global token sees all. Source: Beltagy et al., arXiv:2004.05150, section 3.1.

    Args:
        windowed: The module to take the place of.
    """

    def __init__(self, windowed: Any) -> None:
        super().__init__()
        self.query, self.key, self.value = windowed.query, windowed.key, windowed.value
        self.query_global, self.key_global = windowed.query_global, windowed.key_global
        self.value_global = windowed.value_global
        self.heads = windowed.num_heads
        self.reach = windowed.one_sided_attn_window_size
        self.dropout = windowed.dropout
        self.train(windowed.training)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        is_index_masked: Tensor,
        is_index_global_attn: Tensor,
        is_global_attn: bool,
        output_attentions: bool = False,
    ) -> tuple[Tensor]:
        """Attend.

        Args:
            hidden_states: [B, T, D].
            attention_mask: Not used; the two masks below say the same.
            is_index_masked: [B, T] bool, True = padding.
            is_index_global_attn: [B, T] bool, True at the first token at most.
            is_global_attn: Whether any is.
            output_attentions: Not supported.

        Returns:
            [B, T, D], in a tuple.
        """
        position = torch.arange(hidden_states.shape[1], device=hidden_states.device)
        near = (position[:, None] - position[None, :]).abs() <= self.reach
        seen = near[None] & ~is_index_masked[:, None, :]
        if is_global_attn:
            seen = seen | is_index_global_attn[:, None, :]
        local = self._attend(self.query(hidden_states), self.key(hidden_states), self.value(hidden_states), seen)
        if not is_global_attn:
            return (local,)
        first = self._attend(
            self.query_global(hidden_states[:, :1]),
            self.key_global(hidden_states),
            self.value_global(hidden_states),
            ~is_index_masked[:, None, :],
        )
        return (torch.cat((first, local[:, 1:]), dim=1),)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
        """Attention of [B, Q, D] over [B, T, D] where `seen` [B, Q, T] is True."""
        batch, length, width = query.shape
        queries, keys, values = (
            part.view(batch, -1, self.heads, width // self.heads).transpose(1, 2) for part in (query, key, value)
        )
        # Not minus infinity: a padded row that sees nothing would become NaN, and 0 x NaN spoils the rows that see it.
        bias = torch.zeros_like(seen, dtype=query.dtype).masked_fill(~seen, torch.finfo(query.dtype).min)
        output = nn.functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=bias[:, None], dropout_p=self.dropout if self.training else 0.0
        )
        return output.transpose(1, 2).reshape(batch, length, width)


def densify(model: Any) -> None:
    """Put `DenseAttention` in the place of each attention of a Longformer classifier, and stop its padding."""
    for layer in model.base_model.encoder.layer:
        layer.attention.self = DenseAttention(layer.attention.self)
    model.base_model._pad_to_window_size = _keep_length


def _keep_length(
    input_ids: Tensor,
    attention_mask: Tensor,
    token_type_ids: Tensor,
    position_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    pad_token_id: int,
) -> tuple[int, Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """What `LongformerModel._pad_to_window_size` returns for an input that needs no padding."""
    return 0, input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds
