"""Reward against KL over a run's steps: where more KL buys no more reward."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rl_client.errors import DataError
from rl_client.offline.figures import REWARD_PREFIX
from rl_client.offline.significance import Values

METRICS_FILE = "metrics.jsonl"
KL = "kl"
SMOOTHED_SHARE = 0.1
"""The moving average takes this share of the steps."""


@dataclass(frozen=True, slots=True)
class Course:
    """One reward over a run.

    Attributes:
        steps: [N] steps.
        kl: [N] KL to the reference, in nats a response, smoothed.
        reward: [N] the reward, smoothed.
        raw_kl: [N] as logged.
        raw_reward: [N] as logged.
    """

    steps: Values
    kl: Values
    reward: Values
    raw_kl: Values
    raw_reward: Values

    def summarise(self) -> dict[str, Any]:
        """Where the smoothed reward is highest, and how much of it is gone at the end."""
        peak = int(np.argmax(self.reward))
        return {
            "steps": len(self.steps),
            "peak": {name: float(column[peak]) for name, column in self._columns()},
            "last": {name: float(column[-1]) for name, column in self._columns()},
            "drop": float(self.reward[peak] - self.reward[-1]),
            "points": [
                {"step": step, "kl": kl, "reward": reward}
                for step, kl, reward in zip(
                    self.steps.tolist(), self.raw_kl.tolist(), self.raw_reward.tolist(), strict=True
                )
            ],
        }

    def _columns(self) -> tuple[tuple[str, Values], ...]:
        return ("step", self.steps), ("kl", self.kl), ("reward", self.reward)


def read_courses(run: Path) -> dict[str, Course]:
    """The course of every reward of a run, by reward model.

    Args:
        run: A run's folder, or its metrics.jsonl.

    Raises:
        DataError: If there are no metrics, or they hold no reward with its KL.
    """
    path = run / METRICS_FILE if run.is_dir() else run
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        # A last line without its end was torn off by a crash.
        logged = [json.loads(line) for line in lines if line.endswith("\n")]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    names = dict.fromkeys(name for line in logged for name in line if name.startswith(REWARD_PREFIX))
    courses = {name.removeprefix(REWARD_PREFIX): course for name in names if (course := _course(logged, name))}
    if not courses:
        raise DataError(f"{path} holds no step with both {KL!r} and a reward")
    return courses


def _course(logged: Sequence[Mapping[str, Any]], name: str) -> Course | None:
    points = [
        (line["step"], line[KL], line[name])
        for line in logged
        if all(isinstance(line.get(key), int | float) and math.isfinite(line[key]) for key in ("step", KL, name))
    ]
    if not points:
        return None
    steps, kl, reward = np.array(points, dtype=np.float64).T
    window = max(1, round(len(points) * SMOOTHED_SHARE))
    return Course(steps, _smooth(kl, window), _smooth(reward, window), kl, reward)


def _smooth(values: Values, window: int) -> Values:
    """Mean of each value and those before it, `window` in all, fewer at the start."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    smoothed: Values = (sums[ends] - sums[starts]) / (ends - starts)
    return smoothed
