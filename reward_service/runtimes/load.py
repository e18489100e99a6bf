"""Settings of one model -> the runtime that computes it, let in by the gate."""

import logging
from pathlib import Path

from reward_service.config import Batching, ModelSettings, Precision, Runtime
from reward_service.core.backend import Backend
from reward_service.core.encode import InputEncoder
from reward_service.errors import ParityError, StoreError
from reward_service.registry.exports import ONNX_FILE, REFERENCE_FILE, ExportRecord, read_reference
from reward_service.registry.store import Published
from reward_service.runtimes.gate import Gate
from reward_service.runtimes.machine import EXTRAS, environment, is_installed

logger = logging.getLogger(__name__)

REFERENCE = "torch-fp32"
"""What every other runtime is compared with; it needs no record."""

ONNX_FP32 = "onnxruntime-fp32"
"""The export whose ONNX file OpenVINO reads as well."""


def runtime_name(runtime: Runtime, precision: Precision) -> str:
    """As the wire and the store name it, such as `openvino-bf16`."""
    return f"{runtime}-{precision}"


def load_backend(published: Published, wanted: ModelSettings, batching: Batching) -> Backend:
    """Load the runtime that the settings name.

    What was compared on another processor or with other versions of the libraries is compared here again, with the
    scores that torch gave when the model was exported.

    Args:
        published: The version.
        wanted: Which runtime, precision and device; `auto` is `choose.choose_backend`'s.
        batching: Threads, and the batches that are compared.

    Raises:
        StoreError: Not exported, changed since, the runtime is not installed or cannot be used, or its scores are not
            the model's on this machine.
        ModelFailedError: It does not run.
    """
    precision = wanted.precision or Precision.FP32
    name = runtime_name(wanted.runtime, precision)
    if name == REFERENCE:
        return make_backend(published, wanted.runtime, precision, threads=batching.threads, device=wanted.device)
    record = find_record(published, name)
    backend = make_backend(published, wanted.runtime, precision, threads=batching.threads, device=wanted.device)
    if record.runtime == name and record.made_on == environment(wanted.runtime, wanted.device):
        return backend
    logger.info("%s@%s: comparing %s with torch's scores here", published.name, published.version, name)
    try:
        open_gate(published, record, batching).check(backend, precision)
    except ParityError as error:
        backend.close()
        raise StoreError(str(error)) from error
    return backend


def find_record(published: Published, name: str) -> ExportRecord:
    """The record that lets a runtime in: its own, or for OpenVINO in fp32 that of the file it reads.

    Raises:
        StoreError: There is none, or files were changed since.
    """
    if name == "openvino-fp32" and not published.export_path(name).is_dir():
        name = ONNX_FP32
    record = published.export_record(name)
    if record.reads and record.reads != record.runtime:
        published.export_record(record.reads)  # verified too
    return record


def open_gate(published: Published, record: ExportRecord, batching: Batching) -> Gate:
    """The texts that were published with an export, and the batches in which the service would run them.

    Raises:
        StoreError: The texts are missing or do not fit the version.
    """
    texts = read_reference(published.export_path(record.runtime) / REFERENCE_FILE)
    return Gate(published, texts, max_batch_tokens=batching.max_batch_tokens, max_padding=batching.max_padding)


def onnx_export(runtime: Runtime, precision: Precision) -> str:
    """Which export's ONNX file a runtime reads; empty for torch."""
    if runtime is Runtime.TORCH:
        return ""
    return runtime_name(runtime, precision) if precision is Precision.INT8 else ONNX_FP32


def make_backend(
    published: Published, runtime: Runtime, precision: Precision, *, threads: int, device: str = "cpu"
) -> Backend:
    """Load a runtime that is named, whether or not it passed the gate. Its ONNX file is not verified here.

    Raises:
        StoreError: The runtime is not installed, or cannot be used for this model on this machine.
    """
    if not is_installed(runtime):
        raise StoreError(
            f"{published.name}@{published.version}: {runtime} is not installed: "
            f"pip install 'fine-grained-rlhf[{EXTRAS[runtime]}]'"
        )
    path = published.export_path(onnx_export(runtime, precision)) / ONNX_FILE
    try:
        return open_runtime(published, runtime, precision, path, threads=threads, device=device)
    except (ValueError, ImportError, RuntimeError) as error:
        raise StoreError(f"{published.name}@{published.version}: {runtime} in {precision}: {error}") from error


def open_runtime(
    published: Published, runtime: Runtime, precision: Precision, path: Path, *, threads: int, device: str = "cpu"
) -> Backend:
    """Import and open a runtime.

    Args:
        published: The version, which torch reads.
        runtime: Not `auto`.
        precision: One that the runtime has.
        path: The ONNX file that the others read.
        threads: Of one inference.
        device: `cpu`, `cuda` or `cuda:N`.

    Raises:
        ImportError: The runtime is not installed.
        ValueError: It cannot compute in this precision, or not on this device.
        RuntimeError: It cannot read the file.
    """
    if runtime is Runtime.TORCH:
        from reward_service.backends.torch_backend import TorchBackend

        kind = published.manifest.kind
        return TorchBackend(published.path, kind, threads=threads, device=device, precision=precision)
    if runtime is Runtime.ONNXRUNTIME:
        from reward_service.backends.onnx_backend import OnnxBackend

        return OnnxBackend(path, threads=threads, device=device, precision=precision)
    from reward_service.backends.openvino_backend import OpenVinoBackend

    if device != "cpu":
        raise ValueError(f"openvino computes on the CPU, not on {device}")
    manifest = published.manifest
    pad_id = InputEncoder(published.load_tokenizer(), manifest.input_spec).pad_id
    return OpenVinoBackend(path, threads=threads, precision=precision, pad_id=pad_id, max_tokens=manifest.max_tokens)
