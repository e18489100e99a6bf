"""Text Embeddings Inference: `POST /predict`. A pair is a prompt and its response."""

from typing import Annotated

from pydantic import BaseModel, Field

from reward_service.compat_settings import Compat
from reward_service.web.compat.combine import Rewards
from reward_service.web.compat.texts import Sample, sample_of_text

LABEL = "reward"

Sequence = Annotated[list[str], Field(min_length=1, max_length=2)]
"""`[text]` or `[prompt, response]`."""


class PredictRequest(BaseModel):
    """What clients of TEI send; further fields are ignored.

    Attributes:
        inputs: One text, one sequence, or a batch of sequences. A bare `["a", "b"]` is one pair.
        truncate: Has no effect: a model's manifest says what may be cut.
        raw_scores: Has no effect: a weighted sum has no activation.
    """

    inputs: str | Sequence | Annotated[list[Sequence], Field(min_length=1)]
    truncate: bool | None = None
    raw_scores: bool | None = None


class Prediction(BaseModel):
    """The one number of a text."""

    score: float
    label: str


class PredictErrorReply(BaseModel):
    """The body of every reply whose status is not 2xx."""

    error: str
    error_type: str


def to_samples(wanted: PredictRequest, settings: Compat) -> list[Sample]:
    """Divide single texts; pairs are divided already.

    Raises:
        InvalidRequestError: A text lacks the mark that `compat.response_after` names.
    """
    sequences = _sequences(wanted)
    return [
        Sample(sequence[0], sequence[1])
        if len(sequence) == 2
        else sample_of_text(sequence[0], f"inputs.{index}", settings)
        for index, sequence in enumerate(sequences)
    ]


def to_reply(wanted: PredictRequest, rewards: Rewards) -> list[Prediction] | list[list[Prediction]]:
    """A list for each sequence; only a batch has a list around them."""
    predictions = [[Prediction(score=value, label=LABEL)] for value in rewards.values]
    return predictions if _is_batch(wanted) else predictions[0]


def _is_batch(wanted: PredictRequest) -> bool:
    return not isinstance(wanted.inputs, str) and isinstance(wanted.inputs[0], list)


def _sequences(wanted: PredictRequest) -> list[list[str]]:
    if isinstance(wanted.inputs, str):
        return [[wanted.inputs]]
    texts = [entry for entry in wanted.inputs if isinstance(entry, str)]
    batch = [entry for entry in wanted.inputs if not isinstance(entry, str)]
    return batch or [texts]
