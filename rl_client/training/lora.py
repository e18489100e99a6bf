"""Low-rank adapters in a network, through peft (the extra `lora`): on, switched off, and merged."""

import copy
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from rl_client.errors import ConfigError, ModelFilesError
from rl_client.training.settings_models import LoraSettings

ADAPTER_FOLDER = "adapter"
"""Inside the directory of the merged network."""


class Adapter:
    """What peft put into a network. The network's own weights are frozen, and its forward includes the adapter."""

    def __init__(self, network: PreTrainedModel, settings: LoraSettings, seed: int) -> None:
        """Put an adapter into every chosen layer; it changes nothing yet, its second matrix being 0.

        Args:
            network: Changed in place, and left in eval mode.
            settings: Rank, scale and places.
            seed: Of the first matrices.

        Raises:
            ConfigError: If peft is not installed.
            ModelFilesError: If no layer has one of the names of `target_modules`.
        """
        try:
            from peft import LoraConfig, TaskType, get_peft_model
        except ImportError as error:
            raise ConfigError("settings", ["lora needs the package peft (the extra `lora`)"]) from error
        task = TaskType.SEQ_2_SEQ_LM if network.config.is_encoder_decoder else TaskType.CAUSAL_LM
        config = LoraConfig(
            task_type=task,
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            # peft's shorthand leaves the vocabulary head out.
            target_modules=list(settings.target_modules) if settings.target_modules else "all-linear",
            fan_in_fan_out=network.config.model_type == "gpt2",  # its layers hold their weights transposed
        )
        devices = [parameter.device for parameter in network.parameters() if parameter.is_cuda][:1]
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            try:
                self._peft: Any = get_peft_model(network, config)
            except ValueError as error:
                raise ModelFilesError(f"lora: {error}") from error
        self._peft.eval()

    def switched_off(self) -> AbstractContextManager[object]:
        """Inside this context the network computes what it did before it had an adapter."""
        context: AbstractContextManager[object] = self._peft.disable_adapter()
        return context

    def merged(self) -> PreTrainedModel:
        """A copy of the network with the adapter added into its weights, and none beside them."""
        network: PreTrainedModel = copy.deepcopy(self._peft).merge_and_unload()
        return network

    def save(self, folder: Path) -> None:
        """Write the adapter alone, in peft's format."""
        self._peft.save_pretrained(folder)
