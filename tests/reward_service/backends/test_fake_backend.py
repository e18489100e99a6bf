import numpy as np
import pytest

from reward_proto.models import ModelKind
from reward_service.backends.fake_backend import FakeBackend
from reward_service.domain import Batch, Head

BATCH = Batch(
    np.array([[1, 9, 0], [3, 4, 5]], dtype=np.int64),
    np.array([[1, 1, 0], [1, 1, 1]], dtype=np.int64),
)


def test_a_span_model_has_logits_for_each_token() -> None:
    logits = FakeBackend(Head(ModelKind.TOKEN_CLASSIFICATION, ("ok", "bad"), "ok")).infer(BATCH)
    assert logits.shape == (2, 3, 2)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits[0, 1], [2 / 7, -2 / 7], rtol=1e-6)


def test_a_sequence_model_reads_the_last_real_token() -> None:
    logits = FakeBackend(Head(ModelKind.SEQUENCE_REGRESSION)).infer(BATCH)
    np.testing.assert_allclose(logits, [[2 / 7], [5 / 7]], rtol=1e-6)


def test_the_hook_sees_every_batch_and_may_fail_it() -> None:
    def refuse(batch: Batch) -> None:
        assert batch is BATCH
        raise RuntimeError("no")

    backend = FakeBackend(Head(ModelKind.SEQUENCE_REGRESSION), before=refuse)
    with pytest.raises(RuntimeError, match="no"):
        backend.infer(BATCH)
    backend.close()
