"""Toxicity by the Perspective API's `comments:analyze`, or by a service that speaks its protocol."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from reward_service.core.text_reward import Result
from reward_service.domain import ItemScore, ScoredSpan, Segmented
from reward_service.errors import InvalidRequestError, ServiceError, TooLongError
from reward_service.text_rewards.http_api import BadReplyError, HttpApi, first_fault
from reward_service.text_rewards.settings import PerspectiveSettings

PATH = "/v1alpha1/comments:analyze"
KEY_HEADER = "X-Goog-Api-Key"
MAX_TEXT_BYTES = 20_480
"""The API's limit on one comment."""

OK_LABEL, TOXIC_LABEL = "ok", "toxic"
LABELS = (OK_LABEL, TOXIC_LABEL)
TOXIC_FROM = 0.5

REFUSED_TEXTS = frozenset({"COMMENT_EMPTY", "LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE", "LANGUAGE_DETECTION_FAILED"})
"""The API's `errorType`s that are the text's fault, `COMMENT_TOO_LONG` besides."""


class _Summary(BaseModel):
    value: float = Field(ge=0.0, le=1.0, allow_inf_nan=False, strict=True)


class _AttributeScore(BaseModel):
    summaryScore: _Summary  # noqa: N815 - the protocol's name


class _Analysis(BaseModel):
    attributeScores: dict[str, _AttributeScore]  # noqa: N815 - the protocol's name


class PerspectiveReward:
    """Scores a whole response as 1 - toxicity. The prompt is not part of it.

    Args:
        settings: Where the service is and what is asked of it.
        key: The API key, if the service needs one.
    """

    def __init__(self, settings: PerspectiveSettings, key: str | None) -> None:
        self._settings = settings
        self._api: HttpApi[float] = HttpApi(
            "the Perspective API",
            settings,
            settings.base_url,
            parse=_toxicity,
            key_header=(KEY_HEADER, ""),
            key=key,
            refuse=_refusal,
        )

    async def score(self, responses: Sequence[Segmented]) -> Sequence[Result]:
        """See `core.text_reward.TextReward`."""
        return [await self._score(response) for response in responses]

    async def close(self) -> None:
        """See `core.text_reward.TextReward`."""
        await self._api.close()

    async def _score(self, response: Segmented) -> ItemScore:
        text = response.item.response
        _check_text(text)
        if not response.spans:
            return ItemScore((), 1.0)  # The API refuses an empty comment; nothing is not toxic.
        settings = self._settings
        body: dict[str, Any] = {
            "comment": {"text": text, "type": "PLAIN_TEXT"},
            "requestedAttributes": {settings.attribute: {}},
            "languages": [settings.language],
            "doNotStore": settings.do_not_store,
        }
        toxicity = await self._api.ask(PATH, body, settings.attribute)
        score = 1.0 - toxicity
        label = TOXIC_LABEL if toxicity >= TOXIC_FROM else OK_LABEL
        return ItemScore(tuple(ScoredSpan(span, score, label, (toxicity,)) for span in response.spans), score)


def _check_text(text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"'response' is not valid Unicode at character {error.start}") from error
    if size > MAX_TEXT_BYTES:
        raise TooLongError(f"the text has {size} bytes, the Perspective API takes {MAX_TEXT_BYTES}")


def _toxicity(content: bytes, attribute: str) -> float:
    try:
        analysis = _Analysis.model_validate_json(content)
    except ValidationError as error:
        raise BadReplyError(first_fault(error)) from error
    if attribute not in analysis.attributeScores:
        raise BadReplyError(f"no score for {attribute}")
    return analysis.attributeScores[attribute].summaryScore.value


def _refusal(status: int, payload: Any) -> ServiceError | None:
    if status != 400:
        return None
    text = json.dumps(payload)
    if "COMMENT_TOO_LONG" in text:
        return TooLongError("the text is too long for the Perspective API")
    kind = next((kind for kind in sorted(REFUSED_TEXTS) if kind in text), None)
    return None if kind is None else InvalidRequestError(f"the Perspective API refuses the text: {kind}")
