"""The learning curve."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EpochFigures:
    """One epoch in the learning curve.

    Attributes:
        train_loss: Mean over the epoch's batches, each as it was when it came.
        held_out_loss: After the epoch; None where nothing is held out that counts.
    """

    train_loss: float
    held_out_loss: float | None
