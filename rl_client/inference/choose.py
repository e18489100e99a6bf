"""Which of several candidates is best. A candidate without a score cannot win, and is never taken for a 0."""

from collections.abc import Sequence

from rl_client.errors import TooManyFailedScoresError


def choose_best(rewards: Sequence[float | None], prompt_id: str) -> int:
    """The number of the candidate with the largest reward, the first among equals.

    Args:
        rewards: Of each candidate; None where some model gave no score.
        prompt_id: Named in the error.

    Raises:
        TooManyFailedScoresError: If no candidate has a reward.
    """
    known = [(reward, -number) for number, reward in enumerate(rewards) if reward is not None]
    if not known:
        raise TooManyFailedScoresError(f"none of the {len(rewards)} candidates for prompt {prompt_id} got a score")
    return -max(known)[1]
