import numpy as np

from reward_service.core.collate import collate
from reward_service.domain import Encoded, Read, Span


def encoded(*ids: int) -> Encoded:
    return Encoded(np.array(ids, dtype=np.int64), (Read(np.array([1], dtype=np.int64), (Span(0, 1),)),))


def test_pads_on_the_right_to_the_longest_item() -> None:
    batch = collate([encoded(5, 6), encoded(7, 8, 9)], pad_id=3)
    assert batch.input_ids.tolist() == [[5, 6, 3], [7, 8, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch.input_ids.dtype == batch.attention_mask.dtype == np.int64


def test_a_real_token_with_the_padding_id_stays_unmasked() -> None:
    batch = collate([encoded(3, 3)], pad_id=3)
    assert batch.attention_mask.tolist() == [[1, 1]]
