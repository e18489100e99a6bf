"""Figures of all responses of an evaluation."""

from collections import defaultdict

from rl_client.rollout.stages import Rollout, ScoredRollout


class ResponseTotals:
    """Collects batches; every response counts the same, whatever batch it was in."""

    def __init__(self) -> None:
        self._prompts = 0
        self._cut_prompts = 0
        self._lengths: list[int] = []
        self._finished = 0
        self._failed = 0
        self._scores: dict[str, list[float]] = defaultdict(list)

    def add_responses(self, rollout: Rollout) -> None:
        """Count a batch's lengths and cuts."""
        self._prompts += len(rollout.prompts)
        self._cut_prompts += sum(prompt.cut_tokens > 0 for prompt in rollout.prompts)
        self._lengths += [len(offsets) for offsets in rollout.offsets]
        self._finished += sum(rollout.finished)

    def add_scores(self, scored: ScoredRollout) -> None:
        """Count a batch's scores and rewards; what a model gave no score for is left out and counted as failed."""
        self._failed += int(scored.failed.sum())
        for name, scores in scored.scores.items():
            self._scores[f"reward/{name}"] += [score for score in scores if score is not None]
        for name, rewards in scored.rewards.items():
            self._scores[f"reward_shaped/{name}"] += [reward for reward in rewards if reward is not None]

    def metrics(self) -> dict[str, object]:
        """The figures by name; a mean of nothing is None."""
        n = len(self._lengths)
        shaped = [values for name, values in self._scores.items() if name.startswith("reward_shaped/")]
        means = {name: sum(values) / len(values) if values else None for name, values in self._scores.items()}
        returns = [sum(rewards) for rewards in zip(*shaped, strict=True)]
        return {
            "n_prompts": self._prompts,
            "n": n,
            "length_tokens": sum(self._lengths) / n,
            "share_cut_off": 1.0 - self._finished / n,
            "cut_prompts": self._cut_prompts,
            "failed_scores": self._failed,
            **means,
            **({"return": sum(returns) / len(returns)} if returns else {}),
        }
