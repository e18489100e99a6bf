"""A value model on the policy's own body."""

from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rl_client.rollout.stages import TokenBatch
from rl_client.training.models import PolicyModel, ValueModel, make_value_head, read_values, save_value_head


class SharedValueModel(ValueModel):
    """A scalar head on the policy's states: no second network, and one forward pass for both.

    The value loss reaches the body, except while the policy is not to learn. The body's weights are the policy's and no
    part of this model, of its optimizer or of its checkpoints.
    """

    shares_trunk = True
    _policy: PolicyModel

    def __init__(self, policy: PolicyModel) -> None:
        nn.Module.__init__(self)
        object.__setattr__(self, "_policy", policy)  # past nn.Module's own bookkeeping
        self.head = make_value_head(policy.network)

    def forward(self, tokens: TokenBatch, policy_states: Tensor | None = None) -> Tensor:
        """[B, T] float32: see `ValueModel.forward`; without the policy's states they are computed here."""
        return read_values(self.head, self._policy.states(tokens) if policy_states is None else policy_states)

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write what `ValueModel.save` does: the policy's body as it is, and the head."""
        self._policy.save(folder, tokenizer)
        save_value_head(self.head, folder)
