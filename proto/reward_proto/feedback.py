"""QA-Feedback's own file format: a JSON array of annotated questions.

Source: Wu et al., arXiv 2306.01693; the field names, blanks included, are the released data's.
"""

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

PREFERENCE_PAIRS: tuple[tuple[int, int], ...] = ((1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4))
"""Which two predictions each entry of `preference` compares, in the file's order."""


class SpanError(BaseModel):
    """An error that an annotator marked on `prediction 1`; offsets are half-open code points."""

    model_config = ConfigDict(populate_by_name=True)

    error_type: str = Field(alias="error type")
    explanation: str | None = ""
    start: int
    end: int


class MissingInfo(BaseModel):
    """Passage sentences whose information `prediction 1` lacks."""

    model_config = ConfigDict(populate_by_name=True)

    error_type: str = Field(alias="error type")
    passage_id: int
    sentence_id: list[int]


class Feedback(BaseModel):
    """One annotator's feedback on `prediction 1`."""

    model_config = ConfigDict(populate_by_name=True)

    errors: list[SpanError] = Field(default_factory=list)
    missing_info: list[MissingInfo] = Field(default_factory=list, alias="missing-info")
    corrected_prediction: str = Field(default="", alias="corrected-prediction")


class FeedbackExample(BaseModel):
    """A question, its passages, four predictions and what people said of them.

    Attributes:
        passages: Each a list of a title followed by its sentences.
        preference: For each of `PREFERENCE_PAIRS`: 1 the first is better, 2 the second, 0 neither.
    """

    model_config = ConfigDict(populate_by_name=True)

    question: str
    passages: list[list[str]]
    gold: str = ""
    prediction_1: str = Field(alias="prediction 1")
    prediction_2: str = Field(alias="prediction 2")
    prediction_3: str = Field(alias="prediction 3")
    prediction_4: str = Field(alias="prediction 4")
    feedback: Feedback
    preference: list[int] = Field(default_factory=list)

    @property
    def predictions(self) -> tuple[str, str, str, str]:
        """The four predictions in order."""
        return (self.prediction_1, self.prediction_2, self.prediction_3, self.prediction_4)


FeedbackFile = TypeAdapter(list[FeedbackExample])
"""Validates and serialises a whole file; dump with `by_alias=True`."""
