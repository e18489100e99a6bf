"""Encoded items to one padded batch."""

from collections.abc import Sequence

import numpy as np

from reward_service.domain import Batch, Encoded


def collate(items: Sequence[Encoded], pad_id: int) -> Batch:
    """Pad items to one length, on the right.

    Args:
        items: B inputs, at least one.
        pad_id: The tokenizer's id for padding.

    Returns:
        [B, T] ids and mask, T the longest item.
    """
    longest = max(item.length_tokens for item in items)
    input_ids = np.full((len(items), longest), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(items), longest), dtype=np.int64)
    for row, item in enumerate(items):
        input_ids[row, : item.length_tokens] = item.input_ids
        attention_mask[row, : item.length_tokens] = 1
    return Batch(input_ids, attention_mask)
