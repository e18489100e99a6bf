"""Recompute transformer layers in the backward pass, in eval mode too.

transformers' own switch works in training mode alone, and PPO trains in eval mode, without dropout.
"""

from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def checkpoint_layers(network: nn.Module) -> int:
    """Make every transformer layer of a network keep its inputs alone while gradients are on.

    Args:
        network: Changed in place. Its layers must not be given a cache that they write to while gradients are on.

    Returns:
        How many layers there are.
    """
    layers = [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        # A bound method and no closure: a deep copy of the network then calls its own layers.
        layer.forward = MethodType(_forward, layer)
    return len(layers)


def _forward(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = partial(type(layer).forward, layer, **kwargs)
    if not torch.is_grad_enabled():
        return forward(*args)
    return checkpoint(forward, *args, use_reentrant=False)
