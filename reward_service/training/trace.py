"""A transformers checkpoint as an ONNX graph with free batch size and length."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from reward_proto.models import ModelKind
from reward_service.backends.classifier import load_classifier
from reward_service.backends.onnx_backend import OUTPUT
from reward_service.errors import StoreError

OPSET = 17
"""The first ONNX opset with LayerNormalization as one operator."""

INPUTS = ("input_ids", "attention_mask")
_TRACE_BATCH, _TRACE_TOKENS, _TRACE_PADS = 2, 16, 3


def write_onnx(model_dir: Path, kind: ModelKind, target: Path) -> None:
    """Trace a model into an ONNX file with free batch size and length.

    Eager attention and the tracing exporter: its graphs run as fast as the newer exporter's on ONNX Runtime (BERT of
    1 and 23 million parameters, batches of 1 to 64), and it takes a second where that one takes ten.

    Raises:
        StoreError: The architecture cannot be traced.
    """
    model = load_classifier(model_dir, kind, attention="eager")
    input_ids = torch.ones((_TRACE_BATCH, _TRACE_TOKENS), dtype=torch.int64)
    attention_mask = torch.ones_like(input_ids)
    # With no pad in it a mask might be traced away.
    attention_mask[-1, -_TRACE_PADS:] = 0
    axes = {0: "batch", 1: "length"}
    logits_axes = axes if kind is ModelKind.TOKEN_CLASSIFICATION else {0: "batch"}
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


class _Logits(nn.Module):
    """A transformers model that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of a batch."""
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits
