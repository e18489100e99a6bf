"""Sharded training: each process keeps a part of every weight, gradient and optimizer state (FSDP2).

What the launcher was told is read by accelerate's own plugin; torch's `fully_shard` does the work.
"""

import warnings
from typing import Any

import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy
from torch.distributed.tensor import Shard, distribute_tensor

from rl_client.errors import ConfigError
from rl_client.training.config import TrainConfig, is_launcher_told
from rl_client.training.models import NetworkModel

FSDP2 = 2


class Sharding:
    """How models are divided among all processes."""

    def __init__(self, device: torch.device, count: int, plugin: Any) -> None:
        """Divide among all processes.

        Args:
            device: Where their models are.
            count: How many there are.
            plugin: accelerate's, of FSDP2.
        """
        self._mesh = init_device_mesh(device.type, (count,))
        self._plugin = plugin

    @staticmethod
    def told(device: torch.device, count: int) -> "Sharding | None":
        """What `accelerate launch` was told; None if nothing, or if there is one process.

        Must be called before models are loaded.

        Raises:
            ConfigError: If it was told what is not done.
        """
        if not is_launcher_told("FSDP") or count == 1:
            return None
        try:
            # transformers would otherwise leave the weights of all processes but the first empty.
            plugin = FullyShardedDataParallelPlugin(cpu_ram_efficient_loading=False)
        except ValueError as error:
            raise ConfigError("accelerate launch", [str(error)]) from error
        if faults := _faults(plugin):
            raise ConfigError("accelerate launch", faults)
        return Sharding(device, count, plugin)

    def divide(self, model: NetworkModel) -> None:
        """Divide a model's weights, in place; afterwards only `forward` and `read` may be called.

        A layer's weights are gathered when it computes and let go afterwards. Gradients are summed over the processes
        as they come, each process keeping its part.

        Raises:
            ConfigError: If the launcher was told of layers that the model does not have.
        """
        try:
            is_layer = fsdp2_prepare_auto_wrap_policy(self._plugin, model.network)
        except ValueError as error:
            raise ConfigError("accelerate launch", [str(error)]) from error
        model.reader.stay_within_layers()
        layers = [module for module in model.network.modules() if is_layer is not None and is_layer(module)]
        for layer in reversed(layers):
            fully_shard(layer, mesh=self._mesh, reshard_after_forward=self._plugin.reshard_after_forward)
        fully_shard(model, mesh=self._mesh)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                # The sum: losses are divided by the tokens of all processes already.
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        if hasattr(model, "read"):
            register_fsdp_forward_method(model, "read")
        # Of decoders, whose states are a part of a longer tensor; nothing here writes into states.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")

    def part(self, tensor: torch.Tensor) -> torch.Tensor:
        """This process's part of a tensor that is the same in all processes."""
        return distribute_tensor(tensor.detach(), self._mesh, [Shard(0)], src_data_rank=None)


def check_sharded(config: TrainConfig, sharding: Sharding | None) -> None:
    """Check that the settings can be had with divided weights.

    Raises:
        ConfigError: If they cannot.
    """
    if sharding is not None and config.compile:
        raise ConfigError(
            "settings", ["compile: true: a compiled network would not gather the weights that FSDP divides"]
        )


def _faults(plugin: Any) -> list[str]:
    if plugin.fsdp_version != FSDP2:
        return [f"fsdp_version {plugin.fsdp_version}: give --fsdp_version 2"]
    told = {
        "fsdp_offload_params: true: weights stay on the device": isinstance(plugin.cpu_offload, CPUOffloadPolicy),
        "fsdp_activation_checkpointing: true: set gradient_checkpointing: true in the run's settings": (
            plugin.activation_checkpointing
        ),
        "fsdp_ignored_modules: every weight is divided": plugin.ignored_modules is not None,
        "fsdp_auto_wrap_policy SIZE_BASED_WRAP: give TRANSFORMER_BASED_WRAP or NO_WRAP": (
            plugin.auto_wrap_policy is size_based_auto_wrap_policy
        ),
    }
    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        told[f"FSDP needs a newer torch than {torch.__version__}"] = True
    return [fault for fault, is_told in told.items() if is_told]
