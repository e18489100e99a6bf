"""What an answer counts as."""

from collections.abc import Callable

from reward_service.ledger.answer import ANSWER_BYTES, SCORE_BYTES, SEGMENT_BYTES, Answer


def test_errors_are_no_scores(half_failed: Answer) -> None:
    assert half_failed.scores == 3


def test_size_grows_with_texts_scores_and_segments(make_answer: Callable[..., Answer], half_failed: Answer) -> None:
    # "Why?" has 4 characters, "So. Yes\x00 😀." 11, the field 2; two scores, in two segments and one.
    of_item = 4 + 11 + 2 + 2 * SCORE_BYTES + 3 * SEGMENT_BYTES
    assert make_answer().size_bytes == ANSWER_BYTES + of_item
    assert make_answer(items=5).size_bytes == ANSWER_BYTES + 5 * of_item
    assert half_failed.size_bytes == ANSWER_BYTES + 2 * 17 + 3 * SCORE_BYTES + 2 * SEGMENT_BYTES
