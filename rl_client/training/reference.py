"""The reference: what the policy was at the start."""

import torch
from torch import Tensor, nn

from rl_client.rollout.stages import TokenBatch
from rl_client.training.lora import Adapter
from rl_client.training.models import PolicyModel, freeze_copy


def make_reference(policy: PolicyModel) -> PolicyModel:
    """A policy that never changes.

    Args:
        policy: Before its first update.

    Returns:
        A frozen copy; of a policy with an adapter, the same weights with the adapter switched off, and no copy.
    """
    return freeze_copy(policy) if policy.adapter is None else WithoutAdapter(policy, policy.adapter)


class WithoutAdapter(PolicyModel):
    """A policy with its adapter switched off while it computes; it has no parameters of its own and gives no gradient.

    Not for a thread beside one that uses the policy: the switch is one for both.
    """

    def __init__(self, policy: PolicyModel, its_adapter: Adapter) -> None:
        nn.Module.__init__(self)
        # Past nn.Module's own bookkeeping: the policy's parameters are no part of the reference.
        object.__setattr__(self, "network", policy.network)
        self.reader = policy.reader
        self.adapter = None
        self._its_adapter = its_adapter

    @torch.no_grad()
    def states(self, tokens: TokenBatch) -> Tensor:
        """[B, T, d]: see `PolicyModel.states`."""
        with self._its_adapter.switched_off():
            return super().states(tokens)

    @torch.no_grad()
    def logits(self, states: Tensor) -> Tensor:
        """[..., V]: see `PolicyModel.logits`."""
        with self._its_adapter.switched_off():
            return super().logits(states)
