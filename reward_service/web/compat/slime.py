"""slime: `POST /rm`. The reply is a bare number."""

from typing import Any

from pydantic import BaseModel

from reward_service.web.compat.texts import Sample


class Message(BaseModel):
    """One turn of a conversation; further fields are ignored."""

    role: str
    content: str


class RmRequest(BaseModel):
    """What slime sends; further fields are ignored.

    Attributes:
        prompt: A text, or the turns before the response.
        response: What the policy wrote.
        label: The data set's label; only a text is used.
    """

    prompt: str | list[Message]
    response: str
    label: Any = None


def to_sample(wanted: RmRequest) -> Sample:
    """The sample; of a conversation the turns' contents, one after the other."""
    if isinstance(wanted.prompt, str):
        prompt = wanted.prompt
    else:
        prompt = "\n".join(message.content for message in wanted.prompt)
    return Sample(prompt, wanted.response, wanted.label if isinstance(wanted.label, str) else None)
