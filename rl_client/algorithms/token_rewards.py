"""From segment rewards to one reward a token.

Source: Wu et al., arXiv 2306.01693: the reward of each segment falls on its last token, and every token pays for its
distance from the reference policy.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rl_client.algorithms.kl import KlEstimate, kl_k1


class AlignmentError(ValueError):
    """A segment's end, or its reward, has no sampled token to fall on."""


def end_token_index(offsets: Sequence[tuple[int, int]], span_end: int) -> int:
    """The sampled token that holds the last character of a segment.

    It is the last token whose range contains code point `span_end - 1`. So a token that reaches past the
    segment's end (merged punctuation) still holds it; of the several tokens of one emoji the final one does, whether
    offsets give its width to that one alone or to each of them; tokens without width (partial bytes, eos) never do.

    Args:
        offsets: For each sampled token its half-open code points of the response, in the order sampled.
        span_end: One past the segment's last code point.

    Returns:
        An index into `offsets`.

    Raises:
        AlignmentError: If no token holds that code point: the end is past the text, or not above 0.
    """
    for index in range(len(offsets) - 1, -1, -1):
        start, end = offsets[index]
        if start < span_end <= end:
            return index
    raise AlignmentError(f"no sampled token holds code point {span_end - 1}: the tokens cover {_covered(offsets)}")


def place_rewards(length_tokens: int, ends: Sequence[int], rewards: Sequence[float]) -> Tensor:
    """Put each segment's reward on its end token; rewards that meet on one token add up.

    Args:
        length_tokens: T, the number of sampled tokens, eos included.
        ends: For each segment the index of its end token, in [0, T).
        rewards: For each segment its reward, weight included; finite.

    Returns:
        [T] float32, 0 where no segment ends.

    Raises:
        AlignmentError: If an index is out of range, or the two sequences differ in length.
        ValueError: If a reward is NaN or infinite.
    """
    if len(ends) != len(rewards):
        raise AlignmentError(f"{len(ends)} segment ends but {len(rewards)} rewards")
    placed = [0.0] * length_tokens
    for end, reward in zip(ends, rewards, strict=True):
        if not 0 <= end < length_tokens:
            raise AlignmentError(f"end token {end} is outside the response of {length_tokens} sampled tokens")
        if not math.isfinite(reward):
            raise ValueError(f"the reward of the segment that ends at token {end} is {reward}")
        placed[end] += reward
    return torch.tensor(placed, dtype=torch.float32)


def kl_penalised_rewards(
    token_rewards: Tensor,
    logprobs: Tensor,
    ref_logprobs: Tensor,
    response_mask: Tensor,
    kl_coefficient: float,
    estimator: KlEstimate = kl_k1,
) -> Tensor:
    """The reward PPO maximises: segment rewards minus the price of leaving the reference policy.

    `r_t = token_reward_t - kl_coefficient * estimator(logprob_t, ref_logprob_t)`; by default the k1 estimator for each
    token, `logprob_t - ref_logprob_t`.

    Args:
        token_rewards: [B, T] float32, from `place_rewards`.
        logprobs: [B, T] float32, of the sampled tokens under the policy that sampled them.
        ref_logprobs: [B, T] float32, of the same tokens under the reference.
        response_mask: [B, T] bool, True = a sampled token.
        kl_coefficient: beta, >= 0.
        estimator: Of `algorithms.kl`. As a reward k1 alone has the KL's own gradient in expectation; k2 and k3 never
            pay a token for being likelier under the reference.

    Returns:
        [B, T] float32, 0 where `response_mask` is False.
    """
    penalised = token_rewards - kl_coefficient * estimator(logprobs, ref_logprobs)
    return torch.where(response_mask, penalised, 0.0)


def _covered(offsets: Sequence[tuple[int, int]]) -> str:
    if not offsets:
        return "nothing"
    return f"[{min(start for start, _ in offsets)}, {max(end for _, end in offsets)})"
