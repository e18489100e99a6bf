"""The gate that a runtime passes before it scores: how far it may be from torch in fp32, checked without torch."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reward_service.config import Precision
from reward_service.core.align import align
from reward_service.core.backend import Backend
from reward_service.core.batch_choice import choose_batch
from reward_service.core.collate import collate
from reward_service.core.encode import InputEncoder
from reward_service.core.segment import segment_text
from reward_service.domain import Batch, Encoded, ItemScore, TextItem
from reward_service.errors import ModelFailedError, ParityError, StoreError
from reward_service.registry.exports import ReferenceText
from reward_service.registry.manifest import Manifest
from reward_service.registry.store import Published

Values = tuple[tuple[float, ...], ...]
"""For each head an item's numbers."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Bounds on what a precision may change of a score.

    Attributes:
        max_abs: On the largest difference.
        mean_abs: On the mean difference.
        is_relative: Whether a regressor's bounds are multiples of its standard deviation, as a probability's are of 1.
    """

    max_abs: float
    mean_abs: float
    is_relative: bool = True


TOLERANCES: dict[Precision, Tolerance] = {
    Precision.FP32: Tolerance(1e-4, 1e-4, is_relative=False),
    Precision.BF16: Tolerance(0.05, 0.01),
    Precision.INT8: Tolerance(0.2, 0.03),
}
"""Measured values and the reasons are in docs/reward-models.md."""


class Gate:
    """Texts with torch's scores of them, ready to be run on other runtimes.

    Args:
        published: The version.
        texts: What torch in fp32 said of it.
        max_batch_tokens: Of the batches, as in the service.
        max_padding: Of the batches, as in the service.

    Raises:
        StoreError: The texts do not fit the version.
    """

    def __init__(
        self, published: Published, texts: Sequence[ReferenceText], *, max_batch_tokens: int, max_padding: float
    ) -> None:
        self._name = f"{published.name}@{published.version}"
        self._manifest = published.manifest
        self._encoder = InputEncoder(published.load_tokenizer(), self._manifest.input_spec)
        encoded = [encode_item(text.item, self._manifest, self._encoder) for text in texts]
        for text, item in zip(texts, encoded, strict=True):
            if [len(scores) for scores in text.scores] != [len(read.spans) for read in item.reads]:
                raise StoreError(f"{self._name}: its reference texts are divided otherwise now; export again")
        self._batches: list[list[Encoded]] = []
        expected: list[Values] = []
        for indices in service_batches([item.length_tokens for item in encoded], max_batch_tokens, max_padding):
            self._batches.append([encoded[index] for index in indices])
            expected.extend(texts[index].scores for index in indices)
        self._expected = expected
        self.tokens = sum(item.length_tokens for item in encoded)

    def check(self, backend: Backend, precision: Precision) -> None:
        """Compare a runtime's scores with torch's.

        Raises:
            ParityError: They are further apart than the precision allows.
            ModelFailedError: The runtime raised, or gave NaN or infinity.
        """
        got = [values for batch in self._batches for values in run_batch(backend, self._manifest, batch, self._encoder)]
        for index, output in enumerate(self._manifest.outputs):
            expected = np.array([value for values in self._expected for value in values[index]])
            differences = np.abs(np.array([value for values in got for value in values[index]]) - expected)
            if not len(differences):
                continue
            bounds = TOLERANCES[precision]
            unit = unit_of(self._manifest, index, precision, expected)
            worst, mean = float(differences.max()), float(differences.mean())
            if worst > bounds.max_abs * unit or mean > bounds.mean_abs * unit:
                raise ParityError(
                    f"{self._name}: on this machine {backend.runtime} differs from torch by up to {worst:.3g} and by "
                    f"{mean:.3g} in the mean in {output.name}; {bounds.max_abs * unit:.3g} and "
                    f"{bounds.mean_abs * unit:.3g} are allowed"
                )

    def measure(self, lanes: Sequence[Backend], max_tokens: int) -> float:
        """Run the same batches once on each lane, side by side: at least one, of about `max_tokens` tokens in all.

        Args:
            lanes: Of one division.
            max_tokens: After so many no further batch is begun.

        Returns:
            Tokens a second, padding not counted.
        """
        batches: list[Batch] = []
        tokens = 0
        for batch in self._batches:
            batches.append(collate(batch, self._encoder.pad_id))
            tokens += sum(item.length_tokens for item in batch)
            if tokens * len(lanes) >= max_tokens:
                break

        def run(lane: Backend) -> None:
            for batch in batches:
                lane.infer(batch)

        with ThreadPoolExecutor(len(lanes)) as pool:
            begin_s = time.perf_counter()
            list(pool.map(run, lanes))
            return tokens * len(lanes) / (time.perf_counter() - begin_s)


def encode_item(item: TextItem, manifest: Manifest, encoder: InputEncoder) -> Encoded:
    """Divide a text for each head and encode it, as the service does."""
    language = manifest.segmenter.language
    spans = [segment_text(item.response, output.granularity, language) for output in manifest.outputs]
    return encoder.encode(item, spans)


def service_batches(lengths: Sequence[int], max_batch_tokens: int, max_padding: float) -> list[list[int]]:
    """Indices of the batches in which the service would run inputs that came together.

    Args:
        lengths: Of the inputs, in tokens.
        max_batch_tokens: See `config.Batching`.
        max_padding: See `config.Batching`.
    """
    left = list(range(len(lengths)))
    batches: list[list[int]] = []
    while left:
        chosen = choose_batch([lengths[index] for index in left], max_batch_tokens, max_padding)
        batches.append([left[place] for place in chosen])
        taken = set(chosen)
        left = [index for place, index in enumerate(left) if place not in taken]
    return batches


def run_batch(backend: Backend, manifest: Manifest, batch: Sequence[Encoded], encoder: InputEncoder) -> list[Values]:
    """The numbers of a batch's items.

    Raises:
        ModelFailedError: The runtime raised, or gave NaN or infinity.
    """
    logits = backend.infer(collate(batch, encoder.pad_id))
    return [item_values(results) for results in align(manifest.logit_heads, batch, logits)]


def item_values(results: Sequence[ItemScore | ModelFailedError]) -> Values:
    """For each head its score of every segment, or the scalar where there is no segment.

    Raises:
        ModelFailedError: A head has no score.
    """
    values: list[tuple[float, ...]] = []
    for result in results:
        if isinstance(result, ModelFailedError):
            raise result
        blank = () if result.sequence_score is None else (result.sequence_score,)
        values.append(tuple(segment.score for segment in result.segments) or blank)
    return tuple(values)


def unit_of(manifest: Manifest, head: int, precision: Precision, expected: NDArray[np.float64]) -> float:
    """What the bounds of a precision are multiples of, for one head.

    Args:
        manifest: The model's.
        head: Index of the head.
        precision: Of the runtime.
        expected: [N] scores by torch; their standard deviation stands in where none was recorded at training.
    """
    output = manifest.outputs[head]
    if output.kind.is_classifier or not TOLERANCES[precision].is_relative:
        return 1.0
    return float(expected.std()) if output.calibration is None else output.calibration.std
