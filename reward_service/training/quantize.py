"""ONNX graphs in int8: one recipe for each runtime, since neither computes the other's fast.

The head's own product stays in fp32 in both: it is small, and its error would be a score's error.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from reward_service.core.collate import collate
from reward_service.domain import Encoded

WEIGHT_BITS = 8
MATMUL = "MatMul"


def quantize_for_onnxruntime(
    traced: Path, target: Path, *, outputs: int, texts: Sequence[Encoded], pad_id: int
) -> None:
    """Static quantization: 8-bit weights with a scale a column, and activations with one scale a layer.

    The scales of activations are read off texts. Scales that onnxruntime would choose anew for every batch cost as much
    time and as large an error, and let the neighbours in a batch change a score by as much again.

    Args:
        traced: The fp32 graph as it was traced.
        target: Where the int8 graph is written, in ONNX's own operators (QDQ).
        outputs: Logits of a token or text; the product that gives them stays in fp32.
        texts: Inputs like those that will be served.
        pad_id: The tokenizer's id for padding.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with _quiet():
        quantize_static(
            traced,
            target,
            _Inputs(texts, pad_id),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[MATMUL],
            nodes_to_quantize=_weight_products(traced, outputs),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # 7 bits: processors without VNNI add pairs of products in 16 bits, which 8-bit weights overflow.
            reduce_range=True,
            # What a product gives is added to, normed and so on in fp32: rounding it would gain nothing.
            extra_options={"OpTypesToExcludeOutputQuantization": [MATMUL]},
        )


def quantize_for_openvino(traced: Path, target: Path, *, outputs: int) -> None:
    """8-bit weights with a scale a block of a column; OpenVINO gives each token's activations scales of like blocks.

    Args:
        traced: The fp32 graph as it was traced.
        target: Where the graph with 8-bit weights is written.
        outputs: Logits of a token or text; the product that gives them stays in fp32.
    """
    from reward_service.backends.openvino_backend import QUANTIZED_GROUP

    with _quiet():  # The import alone has the root logger print what every library of the process logs.
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    model = onnx.load(str(traced))
    wanted = set(_weight_products(traced, outputs))
    others = [node.name for node in model.graph.node if node.name not in wanted]
    config = DefaultWeightOnlyQuantConfig(block_size=QUANTIZED_GROUP, is_symmetric=True, bits=WEIGHT_BITS)
    with _quiet():
        quantizer = MatMulNBitsQuantizer(model, nodes_to_exclude=others, algo_config=config)
        quantizer.process()
        quantizer.model.save_model_to_file(str(target))


def _weight_products(path: Path, outputs: int) -> list[str]:
    """Names of the products with a matrix of weights, but the head's."""
    graph = onnx.load(str(path)).graph
    widths = {weight.name: weight.dims[1] for weight in graph.initializer if len(weight.dims) == 2}
    return [
        node.name
        for node in graph.node
        if node.op_type == MATMUL and node.input[1] in widths and widths[node.input[1]] != outputs
    ]


class _Inputs:
    """Feeds of one text each, as onnxruntime's calibration reads them."""

    def __init__(self, texts: Sequence[Encoded], pad_id: int) -> None:
        self._batches = iter([collate([item], pad_id) for item in texts])

    def get_next(self) -> dict[str, NDArray[np.int64]] | None:
        """The next feed; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


@contextmanager
def _quiet() -> Iterator[None]:
    """Both quantizers log each of their steps, and one of them sets up the root logger for that."""
    root = logging.root
    was_disabled, level, handlers = root.manager.disable, root.level, list(root.handlers)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(was_disabled)
        root.setLevel(level)
        for added in [handler for handler in root.handlers if handler not in handlers]:
            root.removeHandler(added)
