"""A traced ONNX graph with its attention, norms and activations as one operator each."""

import logging
import shutil
from pathlib import Path
from typing import Any

import onnx

logger = logging.getLogger(__name__)

FUSED_TYPES = (
    "Attention",
    "MultiHeadAttention",
    "EmbedLayerNormalization",
    "SkipLayerNormalization",
    "LayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "SimplifiedLayerNormalization",
    "BiasGelu",
    "FastGelu",
    "Gelu",
    "QuickGelu",
    "RotaryEmbedding",
)
"""Operators that stand for several of the traced graph's."""


def fuse(traced: Path, target: Path, config: dict[str, Any]) -> dict[str, int]:
    """Fuse what onnxruntime's optimizer of transformers finds, by the patterns of BERT.

    Patterns that are not BERT's, such as rotary positions or
    sliding windows, stay as they are traced; onnxruntime still fuses their activations when it loads the file.

    Args:
        traced: A graph with free batch size and length.
        target: Where the fused graph is written; OpenVINO reads it as well.
        config: The model's config.json, which tells the number of attention heads and the width.

    Returns:
        How many of each of `FUSED_TYPES` the file holds, without those it has none of. Where the optimizer fails, the
        file is the traced one.
    """
    from onnxruntime.transformers import optimizer

    was_disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # It tells of every pattern that it does not find.
    heads = config.get("num_attention_heads") or config.get("n_heads") or 0
    width = config.get("hidden_size") or config.get("dim") or 0
    try:
        # opt_level 0: onnxruntime's own passes would bind the file to this machine; they run when it is loaded.
        fused = optimizer.optimize_model(
            str(traced), model_type="bert", num_heads=heads, hidden_size=width, opt_level=0
        )
        fused.save_model_to_file(str(target))
        fault = None
    except Exception as error:  # noqa: BLE001  # whatever its patterns stumble on; the traced graph is right all the same
        fault = error
    finally:
        logging.disable(was_disabled)
    if fault is not None:
        logger.warning("exporting without fused operators: onnxruntime's optimizer fails on this graph: %s", fault)
        shutil.copyfile(traced, target)
    return count_fused(target)


def count_fused(path: Path) -> dict[str, int]:
    """How many of each of `FUSED_TYPES` a file holds, without those it has none of."""
    types = [node.op_type for node in onnx.load(str(path), load_external_data=False).graph.node]
    return {name: types.count(name) for name in FUSED_TYPES if name in types}
