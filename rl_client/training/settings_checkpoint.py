"""Settings of checkpoints."""

from collections.abc import Collection

from rl_client.training.settings_base import Count, Settings

REWARD_PER_SEGMENT = "reward_per_segment"


class CheckpointSettings(Settings):
    """How often a run can be resumed from, and how many checkpoints stay on disk."""

    every_steps: Count = 100
    keep: Count = 2


class TrainCheckpointSettings(CheckpointSettings):
    """Beside the newest the best one by a metric may stay."""

    every_steps: Count = 10
    best_metric: str | None = None


def check_best_metric(metric: str | None, reward_names: Collection[str]) -> None:
    """Check that a long response is no better by the metric for being long.

    Raises:
        ValueError: If it is none of `reward_per_segment` and `reward/<name>`, whose segments are averaged.
    """
    allowed = [REWARD_PER_SEGMENT, *(f"reward/{name}" for name in reward_names)]
    if metric is not None and metric not in allowed:
        raise ValueError(
            f"checkpoint.best_metric: {metric} is none of {', '.join(allowed)}; sums over a response, such as "
            "`return`, would choose the policy with the longest answers"
        )
