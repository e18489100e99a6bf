"""Invariant 5, for the models: padding, its side and length, what stands in it, and batch neighbours change nothing."""

import pytest
import torch

from rl_client.rollout.stages import TokenBatch

PROMPTS = ((4, 5, 6, 1), (7, 1), (8, 9, 3, 3, 3, 1))
RESPONSES = ((3, 4, 5, 1), (1,), (6, 7, 8))


def padded(rows, left: int, right: int, junk: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = left + max(len(row) for row in rows) + right
    ids, mask = torch.full((len(rows), width), junk), torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, left : left + len(row)] = torch.tensor(row)
        mask[i, left : left + len(row)] = True
    return ids, mask


def batch(rows, *, left=0, right=0, junk=0) -> TokenBatch:
    """Responses are padded to the right always: a decoder's positions count from its start token."""
    prompt_ids, prompt_mask = padded([PROMPTS[row] for row in rows], left, right, junk)
    response_ids, response_mask = padded([RESPONSES[row] for row in rows], 0, right, junk)
    return TokenBatch(prompt_ids, prompt_mask, torch.arange(len(rows)), response_ids, response_mask)


@pytest.mark.parametrize(
    "padding", [{"left": 3}, {"right": 4}, {"right": 2, "junk": 9}, {"left": 2, "right": 1, "junk": 5}]
)
def test_outputs_do_not_depend_on_padding_or_neighbours(policy, value, padding):
    together = batch((0, 1, 2), **padding)
    logits, values = policy(together), value(together)
    for row, response in enumerate(RESPONSES):
        alone = batch((row,))
        length = len(response)
        torch.testing.assert_close(logits[row, :length], policy(alone)[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(values[row, :length], value(alone)[0], atol=1e-5, rtol=1e-5)
