"""Log-probabilities of sampled tokens, from logits or from hidden states, a chunk of tokens at a time."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rl_client.algorithms.kl import entropy_from_logits

ReadLogits = Callable[[Tensor], Tensor]
"""[n, d] hidden states -> [n, V] logits."""


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


def read_logprobs(
    states: Tensor,
    ids: Tensor,
    response_mask: Tensor,
    read_logits: ReadLogits,
    *,
    temperature: float,
    chunk_tokens: int,
) -> Tensor:
    """`gather_logprobs` from hidden states: no more than `chunk_tokens` rows of logits exist at a time.

    Nor are they kept for the gradient: the backward pass computes them again, a chunk at a time.

    Args:
        states: [B, T, d], position t is what token t was drawn from.
        ids: [B, T] int64 sampled tokens.
        response_mask: [B, T] bool; logits of the other positions are not computed at all.
        read_logits: The vocabulary head.
        temperature: > 0.
        chunk_tokens: Rows of logits at a time, >= 1.

    Returns:
        [B, T] float32, 0 where masked.
    """

    def read(some_states: Tensor, some_ids: Tensor) -> Tensor:
        return gather_logprobs(read_logits(some_states), some_ids, temperature=temperature)

    parts = [
        # Without dropout there is no random state to preserve.
        checkpoint(read, *part, use_reentrant=False, preserve_rng_state=False)
        for part in _chunks(states, ids, response_mask, chunk_tokens)
    ]
    return _scatter(parts, response_mask)


@torch.no_grad()
def read_logprobs_and_entropy(
    states: Tensor,
    ids: Tensor,
    response_mask: Tensor,
    read_logits: ReadLogits,
    *,
    temperature: float,
    chunk_tokens: int,
) -> tuple[Tensor, Tensor]:
    """`read_logprobs` without a gradient, and the entropy of each distribution.

    Args:
        states: As for `read_logprobs`, and so are the others.
        ids: [B, T] int64 sampled tokens.
        response_mask: [B, T] bool.
        read_logits: The vocabulary head.
        temperature: > 0.
        chunk_tokens: Rows of logits at a time, >= 1.

    Returns:
        logprobs: [B, T] float32, 0 where masked.
        entropy: [B, T] float32, in nats, 0 where masked.
    """
    logprobs, entropy = [], []
    for some_states, some_ids in _chunks(states, ids, response_mask, chunk_tokens):
        logits = read_logits(some_states)
        logprobs.append(gather_logprobs(logits, some_ids, temperature=temperature))
        entropy.append(entropy_from_logits(logits, temperature=temperature))
        del logits  # before the next chunk's are made
    return _scatter(logprobs, response_mask), _scatter(entropy, response_mask)


def _chunks(states: Tensor, ids: Tensor, response_mask: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(torch.split(states[response_mask], size), torch.split(ids[response_mask], size), strict=True)


def _scatter(parts: list[Tensor], response_mask: Tensor) -> Tensor:
    flat = torch.cat(parts)
    return torch.zeros(response_mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(response_mask, flat)
