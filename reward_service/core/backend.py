"""The seam between the service and the runtimes that compute logits."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reward_service.domain import Batch


class DeviceLostError(Exception):
    """The device computes nothing any more in this process: the worker ends, which `/readyz` shows."""


class Backend(Protocol):
    """One loaded model on one device. Used by one thread at a time.

    Attributes:
        runtime: Backend and precision as the wire names them, such as `onnxruntime-fp32`.
    """

    runtime: str

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Compute logits.

        Args:
            batch: Padded inputs, B items of at most T tokens.

        Returns:
            [B, T, C] float32 for token classification, [B, C] for sequence models (C = 1 for a regressor).

        Raises:
            ModelFailedError: The runtime raised. NaN and infinity are found by `core.align`.
            DeviceLostError: No further batch can be run.
        """
        ...

    def close(self) -> None:
        """Free the device's memory; the backend is not used afterwards."""
        ...
