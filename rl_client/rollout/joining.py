"""A step's prompts divided among processes, and their rollouts put together again."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from rl_client.rollout.stages import Rollout, TokenBatch


@dataclass(frozen=True, slots=True)
class Share:
    """One process's part of a step's prompts: neighbours, so that the parts in order of rank are the whole.

    Attributes:
        first: Number of the first prompt.
        count: How many.
        total: Of the whole step.
    """

    first: int
    count: int
    total: int

    @staticmethod
    def of(total: int, rank: int, processes: int) -> "Share":
        """The part of process `rank`; parts differ by one prompt at most."""
        first, end = (total * number // processes for number in (rank, rank + 1))
        return Share(first, end - first, total)


def join_rollouts(parts: Sequence[Rollout]) -> Rollout:
    """The rollout of all processes, in order.

    Args:
        parts: On the CPU, each whole.
    """
    if len(parts) == 1:
        return parts[0]
    tokens = [part.tokens for part in parts]
    first_prompts = [sum(len(part.prompts) for part in parts[:number]) for number in range(len(parts))]
    return Rollout(
        prompts=tuple(prompt for part in parts for prompt in part.prompts),
        tokens=TokenBatch(
            prompt_ids=join_rows([batch.prompt_ids for batch in tokens]),
            prompt_mask=join_rows([batch.prompt_mask for batch in tokens]),
            prompt_index=torch.cat(
                [batch.prompt_index + first for batch, first in zip(tokens, first_prompts, strict=True)]
            ),
            response_ids=join_rows([batch.response_ids for batch in tokens]),
            response_mask=join_rows([batch.response_mask for batch in tokens]),
        ),
        finished=tuple(finished for part in parts for finished in part.finished),
        texts=tuple(text for part in parts for text in part.texts),
        offsets=tuple(offsets for part in parts for offsets in part.offsets),
    )


def join_rows(parts: Sequence[Tensor]) -> Tensor:
    """[b, t] tensors of different widths as one, zeros (False) to the right of the narrower ones."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([pad(part, (0, width - part.shape[1])) for part in parts])
