"""Which responses go through the models together.

Whatever the division, gradients add up to those of the whole (invariant 14): it decides time and memory alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from rl_client.rollout.stages import TokenBatch


@dataclass(frozen=True, slots=True)
class Limits:
    """What one forward may hold.

    Attributes:
        responses: At most so many; None for any number.
        tokens: At most so many tokens, padding included; None for any number. A single response over it goes alone.
        share_prompts: Whether a prompt counts once for all of its responses in the forward, or again with each
            response; see `Reader.shares_prompts`.
    """

    responses: int | None = None
    tokens: int | None = None
    share_prompts: bool = True


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    prompt: int
    prompt_tokens: int
    response_tokens: int


class _Microbatch:
    """Rows that go together, and what they cost."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._prompts: set[int] = set()
        self._longest = (0, 0)
        self.rows: list[_Row] = []

    def has_room(self, group: Sequence[_Row]) -> bool:
        """Whether responses of one prompt fit in as well; into an empty one a single response always does."""
        limits, responses = self._limits, len(self.rows) + len(group)
        if responses == 1:
            return True
        if limits.responses is not None and responses > limits.responses:
            return False
        return limits.tokens is None or self._tokens_with(group) <= limits.tokens

    def add(self, group: Sequence[_Row]) -> None:
        """Take responses of one prompt in."""
        self._longest = self._longest_with(group)
        self._prompts.add(group[0].prompt)
        self.rows.extend(group)

    @property
    def tokens(self) -> int:
        """What a forward computes, padding included."""
        return self._tokens_with(())

    def _tokens_with(self, group: Sequence[_Row]) -> int:
        prompt_tokens, response_tokens = self._longest_with(group)
        responses = len(self.rows) + len(group)
        new = bool(group) and group[0].prompt not in self._prompts
        prompts = len(self._prompts) + new if self._limits.share_prompts else responses
        return prompts * prompt_tokens + responses * response_tokens

    def _longest_with(self, group: Sequence[_Row]) -> tuple[int, int]:
        prompt_tokens, response_tokens = self._longest
        return (
            max([prompt_tokens, *(row.prompt_tokens for row in group)]),
            max([response_tokens, *(row.response_tokens for row in group)]),
        )


def divide(batch: TokenBatch, limits: Limits) -> tuple[Tensor, ...]:
    """Divide responses into micro-batches of like lengths.

    Two orders are tried, and the one taken that computes fewer tokens: prompt by prompt, which reads each prompt once,
    and by length of response, which pads least.

    Args:
        batch: B responses.
        limits: Of a micro-batch.

    Returns:
        Row numbers, each row once, on the batch's device.
    """
    prompt_tokens = batch.prompt_mask.sum(dim=1)[batch.prompt_index].tolist()
    response_tokens = batch.response_mask.sum(dim=1).tolist()
    index = batch.prompt_index.tolist()
    rows = [_Row(*row) for row in zip(range(len(batch)), index, prompt_tokens, response_tokens, strict=True)]
    by_length = sorted(rows, key=lambda row: (row.response_tokens, row.prompt_tokens, row.prompt))
    divisions = [_fill(_by_prompt(rows), limits), _fill([[row] for row in by_length], limits)]
    chosen = min(divisions, key=lambda parts: sum(part.tokens for part in parts))
    device = batch.response_ids.device
    return tuple(torch.tensor([row.number for row in part.rows], device=device) for part in chosen)


def _by_prompt(rows: Iterable[_Row]) -> list[list[_Row]]:
    """The responses of each prompt, prompts in order of length."""
    ordered = sorted(rows, key=lambda row: (row.prompt, row.response_tokens))
    groups = [list(group) for _, group in groupby(ordered, key=lambda row: row.prompt)]
    return sorted(groups, key=lambda group: (group[0].prompt_tokens, group[-1].response_tokens))


def _fill(groups: Iterable[Sequence[_Row]], limits: Limits) -> list[_Microbatch]:
    """Fill micro-batches in order; a group is divided only where it is too large for one of its own."""
    parts = [_Microbatch(limits)]
    for group in groups:
        if parts[-1].rows and not parts[-1].has_room(group):
            parts.append(_Microbatch(limits))
        for piece in [group] if parts[-1].has_room(group) else [[row] for row in group]:
            if not parts[-1].has_room(piece):
                parts.append(_Microbatch(limits))
            parts[-1].add(piece)
    return parts
