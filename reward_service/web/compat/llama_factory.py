"""LLaMA-Factory: `POST /v1/rewards`. Each message is prompt and response in one text, special tokens included."""

from pydantic import BaseModel

from reward_service.compat_settings import Compat
from reward_service.web.compat.texts import Sample, sample_of_text


class RewardsRequest(BaseModel):
    """What LLaMA-Factory sends; further fields are ignored.

    Attributes:
        model: Has no effect: `compat.weights` says which models answer.
        messages: Prompts with their responses.
    """

    model: str | None = None
    messages: list[str]


class RewardsReply(BaseModel):
    """One number for each message."""

    scores: list[float]


def to_samples(wanted: RewardsRequest, settings: Compat) -> list[Sample]:
    """Divide each message.

    Raises:
        InvalidRequestError: A message lacks the mark that `compat.response_after` names.
    """
    return [sample_of_text(text, f"messages.{index}", settings) for index, text in enumerate(wanted.messages)]
