"""Models to sample and read with: whole in every process, however their weights are kept.

Sampling takes as many forwards as the longest response has tokens, and each process has its own responses. So that none
waits for a weight that another has no use for, weights are gathered before and let go afterwards.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rl_client.training.models import PolicyModel, ValueModel
from rl_client.training.reference import WithoutAdapter
from rl_client.training.sharding import Sharding
from rl_client.training.shards import settle, whole
from rl_client.training.shared_value import SharedValueModel


class WholeModels:
    """What samples and reads.

    Attributes:
        policy: The policy as it is now.
        reference: As it was at the start.
        value: The value model as it is now.
    """

    def __init__(
        self, policy: PolicyModel, reference: PolicyModel, value: ValueModel, lent: Sequence["LentModel"] = ()
    ) -> None:
        self.policy, self.reference, self.value = policy, reference, value
        self._lent = lent

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """They have their weights within. Every process enters in the same order; inside, none waits for another."""
        try:
            for model in self._lent:
                model.fill()
            yield
        finally:
            for model in self._lent:
                model.empty()

    @staticmethod
    def divide(policy: PolicyModel, reference: PolicyModel, value: ValueModel, sharding: Sharding) -> "WholeModels":
        """Divide models among the processes, in place.

        Args:
            policy: Then trains.
            reference: Of it; its weights are kept in parts.
            value: Then trains. A head on the policy's states stays whole.
            sharding: How.

        Returns:
            Their whole twins.
        """
        twin = copy.deepcopy(policy)
        lent = [LentModel(twin, lambda: _weights(policy))]
        if policy.adapter is None:
            parts = {name: sharding.part(weight) for name, weight in reference.named_parameters()}
            lent.append(LentModel(reference, lambda: parts))
        elif twin.adapter is not None:
            reference = WithoutAdapter(twin, twin.adapter)
        twin_value = SharedValueModel(twin) if value.shares_trunk else copy.deepcopy(value)
        if value.shares_trunk:
            twin_value.head = value.head
        else:
            lent.append(LentModel(twin_value, lambda: _weights(value)))
            sharding.divide(value)
        sharding.divide(policy)
        for model in lent:
            model.empty()
        return WholeModels(twin, reference, twin_value, lent)


class LentModel:
    """A model that has weights only while it is used."""

    def __init__(self, model: nn.Module, weights: Callable[[], Mapping[str, Tensor]]) -> None:
        """Lend weights.

        Args:
            model: Of its own structure.
            weights: Gives them by name, whole or in parts.
        """
        self._model, self._weights = model, weights

    @torch.no_grad()
    def fill(self) -> None:
        """Gather the weights."""
        weights = self._weights()
        for name, parameter in self._model.named_parameters():
            parameter.data = whole(weights[name]).detach()

    def empty(self) -> None:
        """Let go of them."""
        for parameter in self._model.parameters():
            parameter.data = parameter.data.new_empty(0)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    settle(model)
    return dict(model.named_parameters())
