"""A published model as an ONNX file, which is kept only if it scores every sample segment as torch does."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from reward_service.backends.onnx_backend import OnnxBackend
from reward_service.backends.torch_backend import TorchBackend
from reward_service.core.backend import Backend
from reward_service.core.encode import InputEncoder
from reward_service.domain import Encoded, Head, TextItem
from reward_service.errors import ParityError
from reward_service.registry.store import ONNX_FILE, Published, Store
from reward_service.training.samples import encode_fitting, sample_items
from reward_service.training.scoring import score_all
from reward_service.training.trace import OPSET, write_onnx

TOLERANCE = 1e-4
"""Largest difference allowed between a score by torch and by ONNX Runtime: of P(ok), or of a regressor's scalar."""


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
    encoder = InputEncoder(published.load_tokenizer(), manifest.input_spec)
    encoded = encode_fitting(sample_items(published) if items is None else items, manifest, encoder)
    if not encoded:
        raise ParityError(f"{published.name}@{published.version}: no text to compare on that fits the model's length")
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch)
        write_onnx(published.path, manifest.kind, files / ONNX_FILE)
        reference = TorchBackend(published.path, manifest.kind, threads=torch.get_num_threads())
        exported = OnnxBackend(files / ONNX_FILE, threads=torch.get_num_threads())
        parity = compare(manifest.logit_heads, reference, exported, encoded, encoder.pad_id)
        if not parity.max_abs_diff <= TOLERANCE:
            raise ParityError(
                f"{published.name}@{published.version}: ONNX differs from torch by {parity.max_abs_diff:.3g} on one of "
                f"{parity.n_segments} scores; {TOLERANCE:g} is allowed"
            )
        report = {**asdict(parity), "opset": OPSET, "torch": torch.__version__}
        return store.publish_export(published, exported.runtime, files, report), parity


def compare(
    heads: Sequence[Head], reference: Backend, other: Backend, encoded: Sequence[Encoded], pad_id: int
) -> Parity:
    """Score the same inputs by two backends.

    The reference scores them in batches, the other one at a time, so that a graph that depends on padding, batch
    size or length shows.
    """
    expected = score_all(reference, heads, encoded, pad_id)
    alone = [score_all(other, heads, [item], pad_id) for item in encoded]
    pairs = [
        (first, of_item[index][0])
        for index, of_head in enumerate(expected)
        for first, of_item in zip(of_head, alone, strict=True)
    ]
    flips = sum(
        one.label != two.label
        for first, second in pairs
        for one, two in zip(first.segments, second.segments, strict=True)
    )
    # A blank response has no segment, but a sequence head scores it all the same.
    values = [
        (one.score, two.score)
        for first, second in pairs
        for one, two in zip(first.segments, second.segments, strict=True)
    ] + [
        (first.sequence_score, second.sequence_score)
        for first, second in pairs
        if not first.segments and first.sequence_score is not None and second.sequence_score is not None
    ]
    differences = np.abs(np.array([one - two for one, two in values]))
    return Parity(float(differences.max()), float(differences.mean()), flips, len(differences), TOLERANCE)
