"""ONNX Runtime: the path that serves with neither torch nor transformers installed."""

import copy
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from reward_service.core.backend import divide
from reward_service.domain import Batch
from reward_service.errors import ModelFailedError

OUTPUT = "logits"
"""The one output that an exported model has."""

SPIN_US = 20
"""Longer than most gaps between the operators of a run. With the usual 1000 two sessions on two cores lose a tenth."""

SPIN_SINCE = (1, 26)
"""The version of ONNX Runtime that can be told how long; earlier ones spin for a millisecond or not at all."""


class OnnxBackend:
    """One ONNX Runtime session.

    Args:
        path: The exported graph: `input_ids` and `attention_mask` [B, T] int64 in, `logits` out.
        threads: Threads of one inference; at least 1.
        device: `cpu`, `cuda` or `cuda:N`.
        precision: Of the exported graph, `fp32` or `int8`; it only names the runtime here.

    Raises:
        ValueError: This onnxruntime build cannot use the device.
        RuntimeError: It cannot read the graph.
    """

    def __init__(self, path: Path, *, threads: int, device: str = "cpu", precision: str = "fp32") -> None:
        self.runtime = f"onnxruntime-{precision}"
        self._path = path
        self._threads = threads
        self._device = device
        self._session = self._open(threads)

    def _open(self, threads: int) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        for name, value in _spinning().items():
            options.add_session_config_entry(name, value)
        provider = _provider(self._device)
        try:
            session = onnxruntime.InferenceSession(str(self._path), options, providers=[provider])
        except Exception as error:  # onnxruntime's own have no common base
            raise RuntimeError(f"onnxruntime cannot open {self._path}: {error}") from error
        wanted = provider if isinstance(provider, str) else provider[0]
        if wanted not in session.get_providers():
            # It falls back to the CPU, and only logs that, where a library of the device's is missing.
            raise ValueError(f"onnxruntime could not start {wanted} for device {self._device!r}; its log says why")
        return session

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Compute logits; see `core.backend.Backend`."""
        feed = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        try:
            (logits,) = self._session.run([OUTPUT], feed)
        except Exception as error:
            raise ModelFailedError(f"onnxruntime failed on a batch of {batch.input_ids.shape}") from error
        return np.asarray(logits, dtype=np.float32)

    def lanes(self) -> "list[OnnxBackend]":
        """Lanes on further sessions, of fewer threads; see `core.backend.DivisibleBackend`.

        A session of one thread has none of its own: it computes on those that call it, so that lanes share it. Another
        one has all but one of its own, which two callers would have to share.
        """
        count, threads = divide(self._threads)
        if count == 1 or self._device != "cpu":
            return []
        sessions = [self._open(threads)] * count if threads == 1 else [self._open(threads) for _ in range(count)]
        lanes = [copy.copy(self) for _ in sessions]
        for lane, session in zip(lanes, sessions, strict=True):
            lane._threads, lane._session = threads, session
        return lanes

    def close(self) -> None:
        """Free the session."""
        del self._session


def _spinning() -> dict[str, str]:
    """How long the threads of a session look for work before they sleep.

    Between runs they would take the cores from the tokenizer and from the other models' sessions; but to wake them for
    each operator of a run costs 5% of a short one (1.0 of 18.7 ms, MiniLM, 108 tokens, 2 cores).
    """
    version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    if version < SPIN_SINCE:
        return {"session.intra_op.allow_spinning": "0"}
    return {"session.intra_op.spin_duration_us": str(SPIN_US)}


def _provider(device: str) -> str | tuple[str, dict[str, str]]:
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return "CPUExecutionProvider"
    available = onnxruntime.get_available_providers()
    if kind != "cuda" or "CUDAExecutionProvider" not in available:
        raise ValueError(f"onnxruntime cannot use device {device!r}; this build has {', '.join(available)}")
    # TF32 would round the factors of every product to 10 bits, and still be called fp32.
    return "CUDAExecutionProvider", {"device_id": index or "0", "use_tf32": "0"}
