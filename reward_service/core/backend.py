"""The seam between the service and the runtimes that compute logits."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

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


@runtime_checkable
class DivisibleBackend(Backend, Protocol):
    """One that may be divided into lanes: the same model, each on a part of the backend's threads.

    Threads that share an inference wait for each other after every operator, and for what else the cores do in the
    meantime; lanes do not.
    """

    def lanes(self) -> Sequence[Backend]:
        """Divide it; called at most once.

        Returns:
            At least two, which are used beside each other and beside the whole, and closed one by one; none where
            there is nothing to divide, as on a GPU.

        Raises:
            RuntimeError: The runtime cannot open the model once more.
        """
        ...


def divide(threads: int) -> tuple[int, int]:
    """How many lanes so many threads are divided into, and the threads of each.

    Two where that is possible: with more of them a few requests at a time would leave most of the cores idle.
    """
    each = max(1, threads // 2)
    return threads // each, each
