"""Scored responses -> what an update trains on: log-probabilities, values, KL, advantages."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rl_client.algorithms.advantages import compute_gae
from rl_client.algorithms.kl import explained_variance, kl_k1, kl_k3
from rl_client.algorithms.masking import masked_mean, masked_whiten
from rl_client.algorithms.token_rewards import kl_penalised_rewards
from rl_client.rollout.stages import ScoredRollout, TokenBatch, TrainBatch
from rl_client.training.config import PpoSettings
from rl_client.training.metric_log import Metrics
from rl_client.training.microbatches import Limits, divide
from rl_client.training.models import PolicyModel, ValueModel


@dataclass(frozen=True, slots=True)
class Estimates:
    """What the models say of sampled tokens before the update; [B, T] float32, 0 where the mask is False.

    Attributes:
        logprobs: Under the policy.
        ref_logprobs: Under the reference.
        values: Of the states in which each token was chosen.
        entropy: Of the distributions that the tokens were drawn from, in nats.
    """

    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    entropy: Tensor


@torch.no_grad()
def estimate(
    policy: PolicyModel,
    reference: PolicyModel,
    value: ValueModel,
    tokens: TokenBatch,
    *,
    temperature: float,
    microbatch_size: int | None = None,
    microbatch_tokens: int | None = None,
) -> Estimates:
    """One forward of each model over all responses, a micro-batch at a time.

    Args:
        policy: As it was while sampling.
        reference: The frozen policy.
        value: The value model.
        tokens: B responses, on the models' device.
        temperature: That of sampling, applied to policy and reference alike.
        microbatch_size: At most so many responses in one forward.
        microbatch_tokens: At most so many tokens in one forward, padding included.
    """
    shape = tokens.response_mask.shape
    device = tokens.response_mask.device
    columns = {name: torch.zeros(shape, device=device) for name in ("logprobs", "ref_logprobs", "values", "entropy")}
    limits = Limits(microbatch_size, microbatch_tokens, share_prompts=policy.reader.shares_prompts)
    for rows in divide(tokens, limits):
        part = tokens.select(rows)
        width = part.response_ids.shape[1]
        states = policy.states(part)
        logprobs, entropy = policy.logprobs_and_entropy(states, part, temperature=temperature)
        found = {"logprobs": logprobs, "entropy": entropy, "values": value(part, states)}
        del states
        found["ref_logprobs"] = reference.logprobs(reference.states(part), part, temperature=temperature)
        for name, column in found.items():
            columns[name][rows, :width] = torch.where(part.response_mask, column, 0.0)
    return Estimates(**columns)


def make_train_batch(
    scored: ScoredRollout, tokens: TokenBatch, estimates: Estimates, settings: PpoSettings
) -> tuple[TrainBatch, Metrics]:
    """Rewards with KL, advantages and returns of the responses that have a score.

    Args:
        scored: Scores and token rewards of B responses; failed ones are left out.
        tokens: The same responses on the models' device.
        estimates: Of the same responses.
        settings: Discounts, KL coefficient, whitening.

    Returns:
        The batch, and the metrics that can be taken before the update.
    """
    device = tokens.response_ids.device
    kept = torch.nonzero(~scored.failed).squeeze(1).to(device)
    tokens = tokens.select(kept)
    mask = tokens.response_mask
    width = mask.shape[1]
    logprobs, ref_logprobs, values, entropy = (
        column[kept, :width]
        for column in (estimates.logprobs, estimates.ref_logprobs, estimates.values, estimates.entropy)
    )
    token_rewards = scored.token_rewards.to(device)[kept, :width]
    rewards = kl_penalised_rewards(token_rewards, logprobs, ref_logprobs, mask, settings.kl_coefficient)
    if settings.whiten_rewards:
        # The mean stays: shifting it would reward or punish every token for being there, hence length.
        rewards = masked_whiten(rewards, mask, shift_mean=False)
    advantages, returns = compute_gae(rewards, values, mask, gamma=settings.gamma, gae_lambda=settings.gae_lambda)
    if settings.whiten_advantages:
        advantages = masked_whiten(advantages, mask)
    metrics: Metrics = {
        "return": float(token_rewards.sum(dim=1).mean()),
        "kl": float(torch.where(mask, kl_k1(logprobs, ref_logprobs), 0.0).sum(dim=1).mean()),
        "kl_k3": float(torch.where(mask, kl_k3(logprobs, ref_logprobs), 0.0).sum(dim=1).mean()),
        "entropy": float(masked_mean(entropy, mask)),
        "explained_variance": float(explained_variance(values, returns, mask)),
        "length_tokens": float(mask.sum(dim=1).float().mean()),
    }
    return TrainBatch(tokens, logprobs, values, advantages, returns), metrics
