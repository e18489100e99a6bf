"""One step of supervised fine-tuning, and the loss on held-out demonstrations."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rl_client.rollout.stages import TokenBatch
from rl_client.training.demonstrations import Demonstration, collate_demonstrations
from rl_client.training.models import PolicyModel


def token_losses(logits: Tensor, tokens: TokenBatch) -> Tensor:
    """Cross-entropy of each real response token.

    Args:
        logits: [B, T, V].
        tokens: The B responses of T tokens.

    Returns:
        [N] float32, in nats, one for each True in the response mask.
    """
    return cross_entropy(
        logits[tokens.response_mask].float(), tokens.response_ids[tokens.response_mask], reduction="none"
    )


@torch.no_grad()
def held_out_loss(
    policy: PolicyModel,
    demonstrations: Sequence[Demonstration],
    *,
    batch_size: int,
    pad_id: int,
    precision: AbstractContextManager[object],
) -> float:
    """Mean cross-entropy of a token, in nats, dropout off.

    Args:
        policy: Left in the mode that it came in.
        demonstrations: At least one.
        batch_size: Of one forward; does not change the mean.
        pad_id: The tokenizer's.
        precision: Context of the forward passes.
    """
    device = next(policy.parameters()).device
    was_training = policy.training
    policy.eval()
    ordered = sorted(demonstrations, key=lambda demonstration: len(demonstration.response_ids))
    total, count = 0.0, 0
    for start in range(0, len(ordered), batch_size):
        tokens = collate_demonstrations(ordered[start : start + batch_size], pad_id).to(device)
        with precision:
            losses = token_losses(policy(tokens), tokens)
        total += float(losses.sum())
        count += len(losses)
    policy.train(was_training)
    return total / count
