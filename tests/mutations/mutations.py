"""Faults that someone could put into the mathematics of rl_client; each must make an invariant fail."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One textual change of a source file.

    Attributes:
        name: Says what is wrong then.
        file: Under rl_client/.
        before: Occurs exactly once in the file.
        after: What stands there instead.
        invariants: Beginnings of the names of the tests that are expected to notice.
    """

    name: str
    file: str
    before: str
    after: str
    invariants: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "kl_rewards_distance",
        "algorithms/token_rewards.py",
        "token_rewards - kl_coefficient * estimator",
        "token_rewards + kl_coefficient * estimator",
        ("test_inv11",),
    ),
    Mutation(
        "penalised_rewards_are_not_masked",
        "algorithms/token_rewards.py",
        "return torch.where(response_mask, penalised, 0.0)",
        "return penalised",
        ("test_inv08",),
    ),
    Mutation(
        "rewards_that_meet_overwrite",
        "algorithms/token_rewards.py",
        "placed[end] += reward",
        "placed[end] = reward",
        ("test_inv10", "test_inv12"),
    ),
    Mutation(
        "segment_end_one_character_late",
        "algorithms/token_rewards.py",
        "if start < span_end <= end:",
        "if start <= span_end < end:",
        ("test_inv10",),
    ),
    Mutation(
        "whitening_is_not_masked_again",
        "algorithms/masking.py",
        "return torch.where(mask, whitened, 0.0)",
        "return whitened",
        ("test_inv09",),
    ),
    Mutation(
        "whitening_by_the_root_of_std",
        "algorithms/masking.py",
        "std = max(stats.var**0.5, MIN_STD)",
        "std = max(stats.var**0.25, MIN_STD)",
        ("test_inv09",),
    ),
    Mutation(
        "processes_whiten_by_their_own_mean",
        "algorithms/masking.py",
        "squared += part.squared_deviations + delta * delta * count * part.count / total",
        "squared += part.squared_deviations",
        ("test_inv09",),
    ),
    Mutation(
        "gae_reads_values_of_pads",
        "algorithms/advantages.py",
        "next_value = torch.where(real, values[:, t], next_value)",
        "next_value = values[:, t]",
        ("test_inv07", "test_inv08"),
    ),
    Mutation(
        "gae_runs_over_pads",
        "algorithms/advantages.py",
        "next_advantage = torch.where(real, advantage, next_advantage)",
        "next_advantage = advantage",
        ("test_inv07", "test_inv08"),
    ),
    Mutation(
        "gae_mask_off_by_one",
        "algorithms/advantages.py",
        "real = response_mask[:, t]",
        "real = response_mask[:, max(t - 1, 0)]",
        ("test_inv07",),
    ),
    Mutation(
        "td_error_adds_the_value",
        "algorithms/advantages.py",
        "gamma * next_value - values[:, t]",
        "gamma * next_value + values[:, t]",
        ("test_inv07",),
    ),
    Mutation(
        "gae_forgets_lambda",
        "algorithms/advantages.py",
        "gamma * gae_lambda * next_advantage",
        "gamma * next_advantage",
        ("test_inv07",),
    ),
    Mutation(
        "returns_are_advantages",
        "algorithms/advantages.py",
        "torch.where(response_mask, advantages + values, 0.0)",
        "torch.where(response_mask, advantages, 0.0)",
        ("test_inv07",),
    ),
    Mutation(
        "surrogate_takes_the_better_side",
        "algorithms/ppo_loss.py",
        "torch.maximum(-advantages * ratio,",
        "torch.minimum(-advantages * ratio,",
        ("test_inv13",),
    ),
    Mutation(
        "ratio_clipped_above_only",
        "algorithms/ppo_loss.py",
        "ratio.clamp(1.0 - clip_range, 1.0 + clip_range)",
        "ratio.clamp(max=1.0 + clip_range)",
        ("test_inv13",),
    ),
    Mutation(
        "log_ratio_of_pads_counts",
        "algorithms/ppo_loss.py",
        "torch.where(response_mask, logprobs - old_logprobs, 0.0)",
        "logprobs - old_logprobs",
        ("test_inv08", "test_inv13"),
    ),
    Mutation(
        "micro_batches_are_averaged_by_themselves",
        "algorithms/ppo_loss.py",
        "loss=losses.sum() / normalizer",
        "loss=losses.mean()",
        ("test_inv13", "test_inv14_microbatches_add_up"),
    ),
    Mutation(
        "value_clipped_around_the_return",
        "algorithms/ppo_loss.py",
        "torch.clamp(values, old_values - clip_range, old_values + clip_range)",
        "torch.clamp(values, returns - clip_range, returns + clip_range)",
        ("test_inv13",),
    ),
    Mutation(
        "value_loss_without_clipping",
        "algorithms/ppo_loss.py",
        "torch.maximum(errors, clipped_errors).sum()",
        "errors.sum()",
        ("test_inv13",),
    ),
    Mutation(
        "value_mask_is_forgotten",
        "algorithms/ppo_loss.py",
        "(torch.where(response_mask, x, 0.0) for x in (values, old_values, returns))",
        "(values, old_values, returns)",
        ("test_inv08", "test_inv13"),
    ),
    Mutation(
        "k3_with_the_wrong_sign",
        "algorithms/kl.py",
        "return torch.expm1(log_ratio) - log_ratio",
        "return torch.expm1(log_ratio) + log_ratio",
        ("test_inv18",),
    ),
    Mutation(
        "kl_coefficient_without_bounds",
        "algorithms/kl.py",
        "error = min(max(kl / target - 1.0, -MAX_KL_ERROR), MAX_KL_ERROR)",
        "error = kl / target - 1.0",
        ("test_inv18",),
    ),
    Mutation(
        "temperature_multiplies",
        "algorithms/logprobs.py",
        "scaled = scaled / temperature",
        "scaled = scaled * temperature",
        ("test_inv04",),
    ),
    Mutation(
        "a_second_eos_is_kept",
        "rollout/responses.py",
        "return eos_before == 0, is_eos.any(dim=1)",
        "return eos_before <= 1, is_eos.any(dim=1)",
        ("test_inv06",),
    ),
    Mutation(
        "weights_are_ignored",
        "rollout/rewards.py",
        "return self.weight * ((segment.shaped - self.shift) / self.scale)",
        "return (segment.shaped - self.shift) / self.scale",
        ("test_inv12",),
    ),
    Mutation(
        "failed_scores_count_as_zero",
        "training/experience.py",
        "kept = torch.nonzero(~scored.failed).squeeze(1).to(device)",
        "kept = torch.arange(len(scored.failed)).to(device)",
        ("test_inv16_failed",),
    ),
    Mutation(
        "micro_batches_are_normalised_by_themselves",
        "training/ppo_step.py",
        "normalizer=normalizer,",
        "normalizer=float(part.tokens.response_mask.sum()),",
        ("test_inv14_microbatches_change_no_gradient",),
    ),
)
