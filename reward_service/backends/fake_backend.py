"""A backend without a model: for tests, and for trying the service before a model is there."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from reward_proto.models import ModelKind
from reward_service.domain import Batch, Head


class FakeBackend:
    """Logits that depend on each token's id alone, so that a score can be told by hand.

    Class c of a token with id i has the logit `(i % 7) / 7 * (1 if c == 0 else -1)`; a sequence model reads the
    item's last real token.

    Args:
        heads: Their kinds and widths give the logits' shape.
        before: Called with every batch first; a test may block or raise in it.
    """

    def __init__(self, *heads: Head, before: Callable[[Batch], None] | None = None) -> None:
        self.runtime = "fake-fp32"
        self._heads = heads
        self._before = before

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Compute logits; see `core.backend.Backend`."""
        if self._before is not None:
            self._before(batch)
        classes = sum(head.width for head in self._heads)
        sign = np.where(np.arange(classes) == 0, 1.0, -1.0)
        logits = (batch.input_ids % 7 / 7)[..., None] * sign
        if len(self._heads) == 1 and self._heads[0].kind is not ModelKind.TOKEN_CLASSIFICATION:
            last = batch.attention_mask.sum(axis=1) - 1
            logits = logits[np.arange(len(last)), last]
        return logits.astype(np.float32)

    def close(self) -> None:
        """Nothing to free."""
