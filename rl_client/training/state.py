"""Models, optimizers and random states as tensors and JSON values, and back, bit for bit."""

import random
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from rl_client.errors import CheckpointError
from rl_client.training.shards import part_like, settle, whole


def pack_weights(model: nn.Module, *, keep: bool = True) -> dict[str, Tensor]:
    """Parameters that learn and buffers, by name; tied ones once. Frozen ones are those of the run's directories.

    Args:
        model: If its weights are divided, every process packs it.
        keep: False in a process that takes part and has no use for it: it gets nothing.
    """
    settle(model)
    return _pack(_learning(model), keep=keep)


@torch.no_grad()
def unpack_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy weights into a model.

    Raises:
        CheckpointError: If one that learns is missing, one is not the model's, or a shape is another.
    """
    settle(model)
    weights = _weights(model)
    if wrong := (_learning(model).keys() - tensors.keys()) | (tensors.keys() - weights.keys()):
        raise CheckpointError(f"weights do not fit: {sorted(wrong)[:5]}")
    for name, tensor in tensors.items():
        if weights[name].shape != tensor.shape:
            raise CheckpointError(f"{name} has shape {tuple(tensor.shape)}, not {tuple(weights[name].shape)}")
        weights[name].copy_(part_like(tensor, weights[name]))


def pack_optimizer(optimizer: Optimizer, *, keep: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's state as flat tensors `index.name` and a JSON value; `keep` as for `pack_weights`."""
    content = optimizer.state_dict()
    flat = {f"{index}.{name}": value for index, entry in content["state"].items() for name, value in entry.items()}
    return _pack(flat, keep=keep), {"param_groups": content["param_groups"]}


def unpack_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Restore an optimizer over the same parameters in the same order.

    Raises:
        CheckpointError: If it has other parameters.
    """
    entries: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        fits = int(index) < len(parameters) and tensor.shape == parameters[int(index)].shape
        entries.setdefault(int(index), {})[name] = part_like(tensor, parameters[int(index)]) if fits else tensor
    groups = [{**group, "betas": tuple(group["betas"])} for group in state["param_groups"]]
    try:
        optimizer.load_state_dict({"state": entries, "param_groups": groups})
    except ValueError as error:
        raise CheckpointError(f"the optimizer's state does not fit: {error}") from error


def pack_random() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The states of Python's and torch's global generators.

    The run seeds each of its own uses of chance by itself; these cover what libraries draw (dropout while fine-tuning).
    """
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    version, words, gauss = random.getstate()
    return tensors, {"version": version, "words": list(words), "gauss": gauss}


def unpack_random(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Restore the global generators."""
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    random.setstate((state["version"], tuple(state["words"]), state["gauss"]))


def pack_schedule(schedule: LambdaLR) -> dict[str, Any]:
    """A learning-rate schedule as JSON values; its functions are built from the settings again."""
    return {**schedule.state_dict(), "lr_lambdas": [None]}


def _pack(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    packed = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())  # one at a time, so that no process that drops it holds them all
        if keep:
            packed[name] = full.cpu()
    return packed


def _learning(model: nn.Module) -> dict[str, Tensor]:
    learning = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {**learning, **dict(model.named_buffers())}


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
