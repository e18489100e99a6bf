"""PyTorch: the reference path, and the one for a GPU or for bf16."""

import copy
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.utils import logging as transformers_logging

from reward_proto.models import ModelKind
from reward_service.backends.classifier import load_classifier
from reward_service.core.backend import DeviceLostError, divide
from reward_service.domain import Batch
from reward_service.errors import ModelFailedError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Precisions that this backend computes in."""


class TorchBackend:
    """A transformers model in evaluation mode.

    Args:
        model_dir: `config.json` and `model.safetensors`; pickled weights and remote code are refused.
        kind: Chooses the head's class.
        threads: Of one inference on the CPU.
        device: `cpu`, `cuda` or `cuda:N`.
        precision: `fp32` or `bf16`.

    Raises:
        ValueError: An unknown precision, or a device that this torch build lacks.
        StoreError: Weights are missing.
        OSError: Files are missing.
    """

    def __init__(
        self, model_dir: Path, kind: ModelKind, *, threads: int, device: str = "cpu", precision: str = "fp32"
    ) -> None:
        if precision not in DTYPES:
            raise ValueError(f"torch serves {', '.join(DTYPES)}, not {precision!r}")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"torch finds no device {device!r}")
        self.runtime = f"torch-{precision}"
        self._device = torch.device(device)
        self._use(threads)
        transformers_logging.disable_progress_bar()  # A server's log is no terminal.
        self._model = load_classifier(model_dir, kind, dtype=DTYPES[precision])
        self._model.to(self._device)

    def _use(self, threads: int) -> None:
        self._threads = threads
        # OpenMP keeps a team of threads for each thread that calls it. As soon as all of them together are more than
        # the cores, those that wait sleep: with one caller for all batches a short inference takes two thirds of it.
        has_team = self._device.type == "cpu" and threads > 1
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=self.runtime) if has_team else None

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Compute logits; see `core.backend.Backend`."""
        return self._compute(batch) if self._thread is None else self._thread.submit(self._compute, batch).result()

    def _compute(self, batch: Batch) -> NDArray[np.float32]:
        if self._device.type == "cpu":
            torch.set_num_threads(self._threads)  # OpenMP keeps it for each thread that calls.
        try:
            with torch.inference_mode():
                output = self._model(
                    input_ids=torch.from_numpy(batch.input_ids).to(self._device),
                    attention_mask=torch.from_numpy(batch.attention_mask).to(self._device),
                )
                logits: NDArray[np.float32] = output.logits.float().cpu().numpy()
        except (RuntimeError, ValueError, IndexError) as error:
            traceback.clear_frames(error.__traceback__)  # they hold the batch's activations for as long as the error
            self._free_unused(error)
            raise ModelFailedError(f"torch failed on a batch of {batch.input_ids.shape}") from error
        return logits

    def lanes(self) -> "list[TorchBackend]":
        """Lanes that share the weights; see `core.backend.DivisibleBackend`."""
        count, threads = divide(self._threads)
        if count == 1 or self._device.type != "cpu" or any(map(_changes_itself, self._model.modules())):
            return []
        lanes = [copy.copy(self) for _ in range(count)]
        for lane in lanes:
            lane._use(threads)
        return lanes

    def close(self) -> None:
        """Free the weights."""
        if self._thread is not None:
            self._thread.shutdown()
        del self._model
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _free_unused(self, error: Exception) -> None:
        """Give back what a failed batch took.

        Raises:
            DeviceLostError: A kernel's fault, after which CUDA refuses every call of the process.
        """
        if self._device.type != "cuda":
            return
        try:
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()
        except RuntimeError:
            raise DeviceLostError(f"{self._device} is lost to this process") from error


def _changes_itself(module: torch.nn.Module) -> bool:
    """Whether a module keeps something of each batch: rotary positions whose frequencies depend on its length."""
    kinds = getattr(module, "rope_type", "")
    kinds = kinds.values() if isinstance(kinds, dict) else [kinds]
    return any("dynamic" in str(kind) or kind == "longrope" for kind in kinds)
