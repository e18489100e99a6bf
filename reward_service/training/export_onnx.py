"""A published model as an ONNX file, which is kept only if it scores every sample segment as torch does."""

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from reward_proto.models import ModelKind
from reward_service.backends.onnx_backend import OUTPUT, OnnxBackend
from reward_service.backends.torch_backend import TorchBackend
from reward_service.core.backend import Backend
from reward_service.core.encode import InputEncoder, InputSpec
from reward_service.domain import Encoded, Head, TextItem
from reward_service.errors import ParityError, StoreError
from reward_service.registry.store import ONNX_FILE, Published, Store
from reward_service.training.samples import encode_fitting, sample_items
from reward_service.training.scoring import score_all

OPSET = 17
"""The first ONNX opset with LayerNormalization as one operator."""

TOLERANCE = 1e-4
"""Largest difference allowed between a score by torch and by ONNX Runtime: of P(ok), or of a regressor's scalar."""

INPUTS = ("input_ids", "attention_mask")
_TRACE_BATCH, _TRACE_TOKENS, _TRACE_PADS = 2, 16, 3


@dataclass(frozen=True, slots=True)
class Parity:
    """How far two runtimes are apart.

    Attributes:
        max_abs_diff: Largest difference of a score.
        mean_abs_diff: Mean difference.
        label_flips: Segments whose winning class differs.
        n_segments: Scores compared: of segments, or of whole responses for sequence models.
        tolerance: What `max_abs_diff` may be at most.
    """

    max_abs_diff: float
    mean_abs_diff: float
    label_flips: int
    n_segments: int
    tolerance: float


def export_onnx(store: Store, published: Published, items: Sequence[TextItem] | None = None) -> tuple[Path, Parity]:
    """Export a version to ONNX in fp32, check it, and put it beside the version.

    Args:
        store: Where the version is.
        published: The version.
        items: Texts to check on; those published with the model when absent.

    Returns:
        The export's directory and the figures of the check, which its export.json holds as well.

    Raises:
        ParityError: A score differs from torch's by more than `TOLERANCE`, or nothing could be compared. Nothing is
            written.
        StoreError: The model cannot be loaded, or its architecture cannot be exported.
    """
    manifest = published.manifest
    spec = InputSpec(manifest.template, manifest.kind, manifest.max_tokens, manifest.cut_field)
    encoder = InputEncoder(published.load_tokenizer(), spec)
    encoded = encode_fitting(sample_items(published) if items is None else items, manifest, encoder)
    if not encoded:
        raise ParityError(f"{published.name}@{published.version}: no text to compare on that fits the model's length")
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch)
        write_onnx(published.path, manifest.kind, files / ONNX_FILE)
        reference = TorchBackend(published.path, manifest.kind, threads=torch.get_num_threads())
        exported = OnnxBackend(files / ONNX_FILE, threads=torch.get_num_threads())
        parity = compare(manifest.head, reference, exported, encoded, encoder.pad_id)
        if not parity.max_abs_diff <= TOLERANCE:
            raise ParityError(
                f"{published.name}@{published.version}: ONNX differs from torch by {parity.max_abs_diff:.3g} on one of "
                f"{parity.n_segments} scores; {TOLERANCE:g} is allowed"
            )
        report = {**asdict(parity), "opset": OPSET, "torch": torch.__version__}
        return store.publish_export(published, exported.runtime, files, report), parity


def write_onnx(model_dir: Path, kind: ModelKind, target: Path) -> None:
    """Trace a model into an ONNX file with free batch size and length.

    Eager attention and the tracing exporter: its graphs run as fast as the newer exporter's on ONNX Runtime (BERT of
    1 and 23 million parameters, batches of 1 to 64), and it takes a second where that one takes ten.

    Raises:
        StoreError: The architecture cannot be traced.
    """
    is_span_model = kind is ModelKind.TOKEN_CLASSIFICATION
    architecture: Any = AutoModelForTokenClassification if is_span_model else AutoModelForSequenceClassification
    model = architecture.from_pretrained(
        model_dir,
        attn_implementation="eager",
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
    )
    input_ids = torch.ones((_TRACE_BATCH, _TRACE_TOKENS), dtype=torch.int64)
    attention_mask = torch.ones_like(input_ids)
    # With no pad in it a mask might be traced away.
    attention_mask[-1, -_TRACE_PADS:] = 0
    axes = {0: "batch", 1: "length"}
    logits_axes = axes if is_span_model else {0: "batch"}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # The tracer warns of every Python number it meets; the parity check finds those that matter.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Logits(model).eval(),
                (input_ids, attention_mask),
                str(target),
                dynamo=False,
                opset_version=OPSET,
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                dynamic_axes={INPUTS[0]: axes, INPUTS[1]: axes, OUTPUT: logits_axes},
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise StoreError(f"{model_dir}: this architecture cannot be exported to ONNX: {error}") from error


def compare(head: Head, reference: Backend, other: Backend, encoded: Sequence[Encoded], pad_id: int) -> Parity:
    """Score the same inputs by two backends.

    The reference scores them in batches, the other one at a time, so that a graph that depends on padding, batch
    size or length shows.
    """
    expected = score_all(reference, head, encoded, pad_id)
    got = [score for item in encoded for score in score_all(other, head, [item], pad_id)]
    pairs = list(zip(expected, got, strict=True))
    flips = sum(
        one.label != two.label
        for first, second in pairs
        for one, two in zip(first.segments, second.segments, strict=True)
    )
    if head.kind is ModelKind.TOKEN_CLASSIFICATION:
        values = [
            (one.score, two.score)
            for first, second in pairs
            for one, two in zip(first.segments, second.segments, strict=True)
        ]
    else:
        values = [(first.sequence_score or 0.0, second.sequence_score or 0.0) for first, second in pairs]
    differences = np.abs(np.array([one - two for one, two in values]))
    return Parity(float(differences.max()), float(differences.mean()), flips, len(differences), TOLERANCE)


class _Logits(nn.Module):
    """A transformers model that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of a batch."""
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits
