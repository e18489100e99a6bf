"""vLLM's classification API, which verl asks for rewards: `POST /classify`."""

import time
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from reward_service.compat_settings import Compat
from reward_service.web.compat.combine import Rewards
from reward_service.web.compat.texts import Sample, sample_of_text

LABEL = "reward"


class ClassifyRequest(BaseModel):
    """What verl sends; further fields are ignored.

    Attributes:
        model: Echoed; `compat.weights` says which models answer.
        input: One text or several.
        use_activation: Has no effect: a weighted sum has no activation.
    """

    model: str | None = None
    input: str | Annotated[list[str], Field(min_length=1)]
    use_activation: bool | None = None


class Classification(BaseModel):
    """The one number of a text, as a distribution over one class."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class ClassifyUsage(BaseModel):
    """Tokens of the inputs, over all models."""

    prompt_tokens: int
    total_tokens: int


class ClassifyReply(BaseModel):
    """One entry for each text; `created` is a Unix time in seconds."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Classification]
    usage: ClassifyUsage


class ClassifyErrorBody(BaseModel):
    """vLLM's error; `code` is the HTTP status."""

    message: str
    type: str
    param: str | None = None
    code: int


class ClassifyErrorReply(BaseModel):
    """The body of every reply whose status is not 2xx."""

    error: ClassifyErrorBody


def to_samples(wanted: ClassifyRequest, settings: Compat) -> list[Sample]:
    """Divide each text.

    Raises:
        InvalidRequestError: A text lacks the mark that `compat.response_after` names.
    """
    texts = [wanted.input] if isinstance(wanted.input, str) else wanted.input
    return [sample_of_text(text, f"input.{index}", settings) for index, text in enumerate(texts)]


def to_reply(wanted: ClassifyRequest, rewards: Rewards, request_id: str) -> ClassifyReply:
    """The reply in vLLM's words."""
    data = [
        Classification(index=index, label=LABEL, probs=[value], num_classes=1)
        for index, value in enumerate(rewards.values)
    ]
    tokens = rewards.input_tokens
    return ClassifyReply(
        id=f"classify-{request_id}",
        created=int(time.time()),
        model=LABEL if wanted.model is None else wanted.model,
        data=data,
        usage=ClassifyUsage(prompt_tokens=tokens, total_tokens=tokens),
    )
