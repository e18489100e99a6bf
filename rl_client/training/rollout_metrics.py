"""Figures of a scored rollout."""

import math
from collections.abc import Iterable, Sequence

from rl_client.rollout.stages import Rollout, ScoredRollout
from rl_client.training.metric_log import Metrics


def score_metrics(scored: ScoredRollout) -> Metrics:
    """Scores, rewards, failures and latencies of a rollout; null where there is nothing to average."""
    metrics: Metrics = {f"reward/{name}": _mean(scores) for name, scores in scored.scores.items()}
    metrics |= {f"reward_shaped/{name}": _mean(rewards) for name, rewards in scored.rewards.items()}
    metrics["failed_scores"] = float(scored.failed.sum())
    metrics["reward_latency_s"] = quantile(scored.latencies_s, 0.5)
    metrics["reward_latency_p99_s"] = quantile(scored.latencies_s, 0.99)
    metrics["score_s"] = scored.score_s
    return metrics


def response_metrics(rollout: Rollout) -> Metrics:
    """Lengths and cuts of all responses, scored or not."""
    lengths = rollout.tokens.response_mask.sum(dim=1).tolist()
    return {
        "share_cut_off": 1.0 - sum(rollout.finished) / len(rollout.finished),
        "length_tokens": sum(lengths) / len(lengths),
        "cut_prompts": float(sum(prompt.cut_tokens > 0 for prompt in rollout.prompts)),
    }


def quantile(values: Sequence[float], q: float) -> float | None:
    """The smallest value that at least a share `q` of them do not exceed; None for no values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
