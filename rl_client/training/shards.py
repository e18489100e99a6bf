"""Tensors of which each process holds a part, and all of them together the whole."""

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def is_divided(tensor: Tensor) -> bool:
    """Whether this process holds a part of it only."""
    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor. Of a divided one every process asks in the same order; no other asks anyone."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_like(tensor: Tensor, divided: Tensor) -> Tensor:
    """This process's part of a whole tensor, as another one is divided; the tensor itself if that one is not.

    Args:
        tensor: The same in every process, which are not asked.
        divided: Of the same shape.
    """
    if not isinstance(divided, DTensor):
        return tensor
    mesh, placements = divided.device_mesh, divided.placements
    return distribute_tensor(tensor.detach().to(divided.device), mesh, placements, src_data_rank=None)


def settle(model: nn.Module) -> None:
    """Let go of gathered weights: after a forward without a backward pass a model would name them its own."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
