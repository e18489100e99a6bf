"""OpenVINO: reads ONNX files too, and computes in bf16 on CPUs that can."""

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reward_service.backends.onnx_backend import OUTPUT
from reward_service.core.backend import divide
from reward_service.domain import Batch
from reward_service.errors import ModelFailedError

# Importing openvino reports its use to its makers, unasked, where it finds this package; it has a stub in its place.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402

DEVICE = "CPU"

LENGTH_STEP = 8
"""Lengths are rounded up to a multiple of it. Compiled code is kept for each shape that was seen, some 0.2 MB of it for
MiniLM, so that memory would grow with each further pair of length and batch size."""

QUANTIZED_GROUP = 128
"""Neighbouring activations of one token that share a scale in int8. It divides the width of every common encoder."""


class OpenVinoBackend:
    """One compiled model with free batch size and length, on the CPU.

    Args:
        path: The exported graph: `input_ids` and `attention_mask` [B, T] int64 in, `logits` out. For int8 the one with
            8-bit weights.
        threads: Threads of one inference; at least 1.
        precision: `fp32`, `bf16`, or `int8`: 8-bit products, the rest in bf16 where the CPU can and in fp32 elsewhere.
        pad_id: The tokenizer's padding, with which lengths are rounded up; they are left as they are where it is None.
        max_tokens: The model's longest input, which no length is rounded above; no limit if None.

    Raises:
        ValueError: An unknown precision, or bf16 on a CPU that lacks it: OpenVINO would silently compute in fp32.
        RuntimeError: OpenVINO cannot read or compile the graph.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        precision: str = "fp32",
        pad_id: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self.runtime = f"openvino-{precision}"
        self._pad_id = pad_id
        self._max_tokens = max_tokens
        self._threads = threads
        core = openvino.Core()
        has_bf16 = "BF16" in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and not has_bf16:
            raise ValueError("this CPU has no bf16 instructions; OpenVINO would compute in fp32")
        self._core = core
        self._path = path
        self._settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            # Several models share the cores with each other and with the tokenizer.
            "ENABLE_CPU_PINNING": False,
            **_settings_of(precision, has_bf16),
        }
        self._compiled = self._compile(threads, lanes=1)
        self._request = self._compiled.create_infer_request()

    def _compile(self, threads: int, lanes: int) -> openvino.CompiledModel:
        division = {"NUM_STREAMS": lanes, "INFERENCE_NUM_THREADS": threads}
        return self._core.compile_model(str(self._path), DEVICE, {**self._settings, **division})

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Compute logits; see `core.backend.Backend`."""
        rounded = self._rounded(batch)
        try:
            self._request.infer({"input_ids": rounded.input_ids, "attention_mask": rounded.attention_mask})
        except RuntimeError as error:
            raise ModelFailedError(f"openvino failed on a batch of {batch.input_ids.shape}") from error
        # The tensor is the request's own memory, which the next batch overwrites.
        logits = np.array(self._request.get_tensor(OUTPUT).data, dtype=np.float32)
        if logits.shape[: logits.ndim - 1] != rounded.input_ids.shape[: logits.ndim - 1]:
            # It raises nothing on an input that is longer than the model's positions.
            raise ModelFailedError(f"openvino gave logits {logits.shape} for a batch of {batch.input_ids.shape}")
        return logits if logits.ndim == 2 else logits[:, : batch.input_ids.shape[1]]

    def _rounded(self, batch: Batch) -> Batch:
        """The batch at the next length that is a multiple of `LENGTH_STEP`."""
        length = batch.input_ids.shape[1]
        more = -length % LENGTH_STEP
        if self._max_tokens is not None:
            more = max(0, min(more, self._max_tokens - length))
        if self._pad_id is None or not more:
            return batch
        room = ((0, 0), (0, more))
        return Batch(np.pad(batch.input_ids, room, constant_values=self._pad_id), np.pad(batch.attention_mask, room))

    def lanes(self) -> "list[OpenVinoBackend]":
        """The streams of a second compiled model, with the same weights; see `core.backend.DivisibleBackend`."""
        count, threads = divide(self._threads)
        if count == 1:
            return []
        compiled = self._compile(count * threads, lanes=count)
        lanes = [copy.copy(self) for _ in range(count)]
        for lane in lanes:
            lane._threads, lane._compiled, lane._request = threads, compiled, compiled.create_infer_request()
        return lanes

    def close(self) -> None:
        """Free the compiled model."""
        del self._request, self._compiled


def _settings_of(precision: str, has_bf16: bool) -> dict[str, Any]:
    if precision == "fp32":
        return {"INFERENCE_PRECISION_HINT": "f32"}
    if precision == "bf16":
        return {"INFERENCE_PRECISION_HINT": "bf16"}
    if precision == "int8":
        rest = "bf16" if has_bf16 else "f32"
        return {"INFERENCE_PRECISION_HINT": rest, "DYNAMIC_QUANTIZATION_GROUP_SIZE": QUANTIZED_GROUP}
    raise ValueError(f"openvino serves fp32, bf16, int8, not {precision!r}")
