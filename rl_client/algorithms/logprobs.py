"""Log-probabilities of sampled tokens."""

import torch
from torch import Tensor


def gather_logprobs(logits: Tensor, ids: Tensor, *, temperature: float) -> Tensor:
    """Log-probability of each sampled token under the distribution it was sampled from.

    Args:
        logits: [B, T, V], any floating dtype; position t holds the distribution that token t was drawn from.
        ids: [B, T] int64 sampled tokens.
        temperature: > 0, divides the logits, as it did while sampling.

    Returns:
        [B, T] float32, <= 0.

    Raises:
        ValueError: If the temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    scaled = logits.float()
    if temperature != 1.0:
        scaled = scaled / temperature
    chosen = scaled.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    return chosen - torch.logsumexp(scaled, dim=-1)
