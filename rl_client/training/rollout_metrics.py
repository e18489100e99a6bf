"""Figures of a scored rollout."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from rl_client.rollout.rewards import SourceRewards
from rl_client.rollout.stages import Rollout, ScoredRollout
from rl_client.training.metric_log import Metrics


def score_metrics(scored: ScoredRollout) -> Metrics:
    """Scores, rewards, failures and latencies of a rollout; null where there is nothing to average."""
    metrics: Metrics = {f"reward/{name}": _mean(scores) for name, scores in scored.scores.items()}
    metrics |= {f"reward_shaped/{name}": _mean(rewards) for name, rewards in scored.rewards.items()}
    metrics |= {f"component/{source.name}": _component(source, scored) for source in scored.sources}
    metrics["reward_per_segment"] = reward_per_segment(scored)
    metrics["failed_scores"] = float(scored.failed.sum())
    metrics["reward_latency_s"] = quantile(scored.latencies_s, 0.5)
    metrics["reward_latency_p99_s"] = quantile(scored.latencies_s, 0.99)
    metrics["score_s"] = scored.score_s
    return metrics


def reward_per_segment(scored: ScoredRollout) -> float | None:
    """How good the responses are, with no favour for long ones: the best checkpoint can be chosen by it.

    Each model's shaped scores are averaged over a response's segments, where the reward that PPO maximises sums them;
    then over responses, and summed over models by weight. Penalties, normalisation and KL are left out.

    Returns:
        None if some model scored no segment.
    """
    total = 0.0
    for source in scored.sources:
        if source.name not in scored.scores:
            continue  # a penalty
        mean = _mean(
            math.fsum(segment.shaped for segment in segments) / len(segments) if segments else None
            for segments in source.segments
        )
        if mean is None:
            return None
        total += source.weight * mean
    return total


def duplicate_share(rollout: Rollout) -> float:
    """The share of responses whose text another response to the same prompt has too."""
    keys = list(zip(rollout.tokens.prompt_index.tolist(), rollout.texts, strict=True))
    counts = Counter(keys)
    return sum(counts[key] > 1 for key in keys) / len(keys)


def response_metrics(rollout: Rollout) -> Metrics:
    """Lengths and cuts of all responses, scored or not."""
    lengths = rollout.tokens.response_mask.sum(dim=1).tolist()
    return {
        "share_cut_off": 1.0 - sum(rollout.finished) / len(rollout.finished),
        "length_tokens": sum(lengths) / len(lengths),
        "length_tokens_min": float(min(lengths)),
        "length_tokens_max": float(max(lengths)),
        "duplicate_share": duplicate_share(rollout),
        "cut_prompts": float(sum(prompt.cut_tokens > 0 for prompt in rollout.prompts)),
    }


def quantile(values: Sequence[float], q: float) -> float | None:
    """The smallest value that at least a share `q` of them do not exceed; None for no values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)]


def _component(source: SourceRewards, scored: ScoredRollout) -> float | None:
    return _mean(
        None if failed else math.fsum(segment.shaped for segment in segments)
        for segments, failed in zip(source.segments, scored.failed.tolist(), strict=True)
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
