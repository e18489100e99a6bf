"""Scored responses -> what an update trains on: log-probabilities, values, KL, advantages."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rl_client.algorithms.advantages import compute_gae
from rl_client.algorithms.kl import exact_kl, explained_variance, kl_k1, kl_k3
from rl_client.algorithms.masking import masked_mean, masked_whiten
from rl_client.algorithms.token_rewards import kl_penalised_rewards
from rl_client.errors import TooManyFailedScoresError
from rl_client.rollout.stages import ScoredRollout, TokenBatch, TrainBatch
from rl_client.training.config import PpoSettings
from rl_client.training.kl_control import KlControl
from rl_client.training.metric_log import Metrics
from rl_client.training.microbatches import Limits, divide
from rl_client.training.models import PolicyModel, ValueModel
from rl_client.training.settings_kl import KlSettings


@dataclass(frozen=True, slots=True)
class Estimates:
    """What the models say of sampled tokens before the update; [B, T] float32, 0 where the mask is False.

    Attributes:
        logprobs: Under the policy.
        ref_logprobs: Under the reference.
        values: Of the states in which each token was chosen.
        entropy: Of the distributions that the tokens were drawn from, in nats.
        exact_kl: Estimate of the mean KL of a response to the reference, in nats, from whole distributions at some of
            the sampled tokens; None where it was not taken.
    """

    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    entropy: Tensor
    exact_kl: float | None = None


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
    exact_kl_tokens: int = 0,
    probe: Tensor | None = None,
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
        exact_kl_tokens: At how many sampled tokens, evenly spread, whole distributions are compared; 0 for none.
        probe: [B, T] bool, the tokens at which they are, where others are chosen.
    """
    shape = tokens.response_mask.shape
    device = tokens.response_mask.device
    columns = {name: torch.zeros(shape, device=device) for name in ("logprobs", "ref_logprobs", "values", "entropy")}
    probe = spread_tokens(tokens.response_mask, exact_kl_tokens) if probe is None else probe
    divergences = []
    limits = Limits(microbatch_size, microbatch_tokens, share_prompts=policy.reader.shares_prompts)
    for rows in divide(tokens, limits):
        part = tokens.select(rows)
        width = part.response_ids.shape[1]
        states = policy.states(part)
        logprobs, entropy = policy.logprobs_and_entropy(states, part, temperature=temperature)
        found = {"logprobs": logprobs, "entropy": entropy, "values": value(part, states)}
        probed = probe[rows, :width]
        policy_states = states[probed]
        del states
        ref_states = reference.states(part)
        found["ref_logprobs"] = reference.logprobs(ref_states, part, temperature=temperature)
        chunks = (torch.split(some, policy.chunk_tokens) for some in (policy_states, ref_states[probed]))
        for own, ref in zip(*chunks, strict=True):
            divergences.append(exact_kl(policy.logits(own), reference.logits(ref), temperature=temperature))
        for name, column in found.items():
            columns[name][rows, :width] = torch.where(part.response_mask, column, 0.0)
    mean_tokens = float(tokens.response_mask.sum(dim=1).float().mean())
    whole = float(torch.cat(divergences).mean()) * mean_tokens if exact_kl_tokens else None
    return Estimates(**columns, exact_kl=whole)


def spread_tokens(response_mask: Tensor, limit: int) -> Tensor:
    """At most `limit` of the sampled tokens, evenly spread over all of them: [B, T] bool."""
    places = torch.nonzero(response_mask)
    chosen = torch.zeros_like(response_mask)
    if limit:
        rows, columns = places[:: max(1, math.ceil(len(places) / limit))].unbind(dim=1)
        chosen[rows, columns] = True
    return chosen


def make_train_batch(
    scored: ScoredRollout,
    tokens: TokenBatch,
    estimates: Estimates,
    settings: PpoSettings,
    kl_control: KlControl | None = None,
) -> tuple[TrainBatch, Metrics]:
    """Rewards with KL, advantages and returns of the responses that have a score.

    Args:
        scored: Scores and token rewards of B responses; failed ones are left out.
        tokens: The same responses on the models' device.
        estimates: Of the same responses.
        settings: Discounts and whitening; and the KL coefficient where there is no `kl_control`.
        kl_control: What tokens pay for their distance from the reference; None for k1 at the settings' coefficient.

    Returns:
        The batch, and the metrics that can be taken before the update.

    Raises:
        TooManyFailedScoresError: If no response has a score.
    """
    if bool(scored.failed.all()):
        raise TooManyFailedScoresError(
            f"none of {len(scored.failed)} responses has a score; there is nothing to learn from"
        )
    price = kl_control or KlControl(KlSettings(), settings.kl_coefficient)
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
    rewards = kl_penalised_rewards(token_rewards, logprobs, ref_logprobs, mask, price.coefficient, price.estimate)
    if settings.whiten_rewards:
        # The mean stays: shifting it would reward or punish every token for being there, hence length.
        rewards = masked_whiten(rewards, mask, shift_mean=False)
    advantages, returns = compute_gae(rewards, values, mask, gamma=settings.gamma, gae_lambda=settings.gae_lambda)
    if settings.whiten_advantages:
        advantages = masked_whiten(advantages, mask)
    estimators = {"kl": kl_k1, "kl_k3": kl_k3, "component/kl": price.estimate}
    metrics: Metrics = {
        "return": float(token_rewards.sum(dim=1).mean()),
        **{
            name: float(torch.where(mask, estimator(logprobs, ref_logprobs), 0.0).sum(dim=1).mean())
            for name, estimator in estimators.items()
        },
        **({} if estimates.exact_kl is None else {"kl_exact": estimates.exact_kl}),
        "kl_coefficient": price.coefficient,
        "entropy": float(masked_mean(entropy, mask)),
        "explained_variance": float(explained_variance(values, returns, mask)),
        "length_tokens": float(mask.sum(dim=1).float().mean()),
    }
    return TrainBatch(tokens, logprobs, values, advantages, returns), metrics
