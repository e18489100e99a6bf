"""OpenRLHF: `POST /get_reward`. Its `query` is prompt and response in one text, special tokens included."""

from typing import Any

from pydantic import BaseModel

from reward_service.compat_settings import Compat
from reward_service.errors import InvalidRequestError
from reward_service.web.compat.combine import Rewards
from reward_service.web.compat.texts import Sample, sample_of_query, sample_of_text


class OpenRlhfRequest(BaseModel):
    """What OpenRLHF sends; further fields are ignored.

    Attributes:
        query: Prompts with their responses.
        prompts: The prompts alone; earlier releases do not send them.
        labels: The data set's label column; only texts are used.
    """

    query: list[str]
    prompts: list[str] | None = None
    labels: list[Any] | None = None


class OpenRlhfReply(BaseModel):
    """One number for each query, and each model's own for the training's log."""

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]]


def to_samples(wanted: OpenRlhfRequest, settings: Compat) -> list[Sample]:
    """Divide each query.

    Raises:
        InvalidRequestError: The lists differ in length, or a query does not begin with its prompt.
    """
    for name, column in (("prompts", wanted.prompts), ("labels", wanted.labels)):
        if column is not None and len(column) != len(wanted.query):
            raise InvalidRequestError(f"{name}: {len(column)} entries for {len(wanted.query)} queries", path=name)
    labels = wanted.labels or [None] * len(wanted.query)
    samples = []
    for index, (query, label) in enumerate(zip(wanted.query, labels, strict=True)):
        path = f"query.{index}"
        if wanted.prompts is None:
            samples.append(sample_of_text(query, path, settings))
        else:
            text = label if isinstance(label, str) else None
            samples.append(sample_of_query(query, wanted.prompts[index], text, path, settings))
    return samples


def to_reply(rewards: Rewards) -> OpenRlhfReply:
    """The reply; `scores`, which OpenRLHF filters prompts by, are the rewards."""
    return OpenRlhfReply(rewards=rewards.values, scores=rewards.values, extra_logs=rewards.by_model)
