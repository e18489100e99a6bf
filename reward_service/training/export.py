"""A published model on another runtime or in lower precision, kept only if it scores as torch does in fp32."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from reward_service.config import PRECISIONS, Precision, Runtime
from reward_service.core.backend import Backend
from reward_service.core.encode import InputEncoder
from reward_service.domain import Encoded, TextItem
from reward_service.errors import ConfigError, ModelFailedError, ParityError, StoreError
from reward_service.registry.architecture import read_config
from reward_service.registry.exports import (
    ONNX_FILE,
    REFERENCE_FILE,
    ExportRecord,
    HeadParity,
    ReferenceText,
    write_export,
    write_reference,
)
from reward_service.registry.store import Published
from reward_service.runtimes.gate import item_values
from reward_service.runtimes.load import ONNX_FP32, REFERENCE, onnx_export, open_runtime, runtime_name
from reward_service.runtimes.machine import EXTRAS, environment, is_installed
from reward_service.training.fuse import fuse
from reward_service.training.parity import Scores, compare, score_in_batches
from reward_service.training.quantize import quantize_for_onnxruntime, quantize_for_openvino
from reward_service.training.samples import fitting_items, sample_items
from reward_service.training.trace import write_onnx

REFERENCE_TEXTS = 32
"""Texts that are kept with torch's scores, for a service to compare on its own machine without torch."""

DEVICE = "cpu"


@dataclass(frozen=True, slots=True)
class Reference:
    """What a runtime is compared with.

    Attributes:
        items: The texts that fit the model.
        encoded: Their inputs.
        pad_id: The tokenizer's id for padding.
        scores: By torch in fp32.
    """

    items: list[TextItem]
    encoded: list[Encoded]
    pad_id: int
    scores: Scores

    def part(self, first: int) -> "Reference":
        """Every second text, from the first or the second on; all of them where there is one alone."""
        if len(self.items) < 2:
            return self
        return Reference(self.items[first::2], self.encoded[first::2], self.pad_id, self.scores[first::2])

    @property
    def calibration(self) -> "Reference":
        """The texts that scales of activations are read off."""
        return self.part(1)

    @property
    def held_out(self) -> "Reference":
        """The others."""
        return self.part(0)


def export(
    published: Published,
    runtime: Runtime = Runtime.ONNXRUNTIME,
    precision: Precision = Precision.FP32,
    items: Sequence[TextItem] | None = None,
) -> tuple[Path, ExportRecord]:
    """Compare a version on another runtime with torch in fp32, and put files and figures beside the version.

    OpenVINO in fp32 and bf16 reads the file of the export for onnxruntime in fp32, which is made first where it is
    missing.

    Args:
        published: The version.
        runtime: Not `auto`.
        precision: One that the runtime has.
        items: Texts to compare on; those published with the model when absent.

    Returns:
        The export's directory and its record.

    Raises:
        ConfigError: The runtime does not compute in the precision, or there is nothing to export: torch in fp32.
        ParityError: Scores differ by more than the precision allows, or none could be compared. Nothing is written.
        StoreError: The model cannot be loaded, its architecture cannot be exported, or the runtime cannot be used.
    """
    name = runtime_name(runtime, precision)
    if name == REFERENCE or runtime is Runtime.AUTO or precision not in PRECISIONS[runtime]:
        raise ConfigError("export", [f"there is no export for {runtime} in {precision}"])
    if not is_installed(runtime):
        raise StoreError(f"{runtime} is not installed: pip install 'fine-grained-rlhf[{EXTRAS[runtime]}]'")
    reads = onnx_export(runtime, precision)
    if reads not in ("", name) and not published.export_path(reads).is_dir():
        export(published, Runtime.ONNXRUNTIME, Precision.FP32, items)
    reference = _reference(published, sample_items(published) if items is None else items)
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch)
        fused: dict[str, int] = {}
        path = files / ONNX_FILE
        if reads == name:
            fused = _write_graph(published, name, path, reference)
        elif reads:
            path = published.onnx_path(reads)
        judged = reference.held_out if name == runtime_name(Runtime.ONNXRUNTIME, Precision.INT8) else reference
        parity = _pass_gate(published, runtime, precision, path, judged)
        write_reference(files / REFERENCE_FILE, _kept(judged))
        record = ExportRecord(
            version=published.version,
            runtime=name,
            reads=reads,
            parity=parity,
            n_texts=len(judged.items),
            made_on=environment(runtime, DEVICE),
            fused=fused,
            torch=torch.__version__,
        )
        target = published.export_path(name)
        return target, write_export(target, record, files)


def offered() -> list[tuple[Runtime, Precision]]:
    """What `runtime: auto` chooses from besides torch in fp32, of the runtimes that are installed."""
    runtimes = (Runtime.ONNXRUNTIME, Runtime.OPENVINO, Runtime.TORCH)
    return [
        (runtime, precision)
        for runtime in runtimes
        for precision in Precision
        if is_installed(runtime) and precision in PRECISIONS[runtime] and runtime_name(runtime, precision) != REFERENCE
    ]


def _reference(published: Published, items: Sequence[TextItem]) -> Reference:
    manifest = published.manifest
    encoder = InputEncoder(published.load_tokenizer(), manifest.input_spec)
    kept, encoded = fitting_items(items, manifest, encoder)
    if not encoded:
        raise ParityError(f"{published.name}@{published.version}: no text to compare on that fits the model's length")
    backend: Backend = open_runtime(
        published, Runtime.TORCH, Precision.FP32, Path(), threads=torch.get_num_threads(), device=DEVICE
    )
    scores = score_in_batches(backend, manifest, encoded, encoder.pad_id)
    backend.close()
    return Reference(kept, encoded, encoder.pad_id, scores)


def _pass_gate(
    published: Published, runtime: Runtime, precision: Precision, path: Path, reference: Reference
) -> dict[str, HeadParity]:
    """Compare a runtime with the reference; it raises where a bound is passed."""
    label = f"{published.name}@{published.version}"
    try:
        backend = open_runtime(published, runtime, precision, path, threads=torch.get_num_threads(), device=DEVICE)
        parity = compare(published.manifest, precision, reference.scores, backend, reference.encoded, reference.pad_id)
    except (ValueError, ImportError, RuntimeError, ModelFailedError) as error:
        raise StoreError(f"{label}: {runtime} in {precision}: {error}") from error
    backend.close()
    for head, figures in parity.items():
        if figures.fault is not None:
            name = runtime_name(runtime, precision)
            raise ParityError(f"{label}: {name} differs from torch in {head}: {figures.fault}")
    return parity


def _kept(reference: Reference) -> list[ReferenceText]:
    """Some texts of every part of the list, in its order."""
    count = len(reference.items)
    step = max(1, -(-count // REFERENCE_TEXTS))
    return [
        ReferenceText(
            prompt=reference.items[index].prompt,
            response=reference.items[index].response,
            fields=reference.items[index].fields,
            scores=item_values(reference.scores[index]),
        )
        for index in range(0, count, step)
    ]


def _write_graph(published: Published, name: str, target: Path, reference: Reference) -> dict[str, int]:
    """Write an export's own ONNX file; returns its fused operators."""
    manifest = published.manifest
    outputs = sum(head.width for head in manifest.logit_heads)
    with tempfile.TemporaryDirectory() as scratch:
        traced = Path(scratch) / "traced.onnx"
        write_onnx(published.path, manifest.kind, traced)
        if name == ONNX_FP32:
            return fuse(traced, target, read_config(published.path))
        # Fused operators hide their weights from the quantizers; the runtimes fuse what is left when they load a file.
        if name == runtime_name(Runtime.OPENVINO, Precision.INT8):
            quantize_for_openvino(traced, target, outputs=outputs)
        else:
            texts = reference.calibration.encoded
            quantize_for_onnxruntime(traced, target, outputs=outputs, texts=texts, pad_id=reference.pad_id)
    return {}
