"""Sentence-level rewards of a model that judges whole texts: what each sentence adds to the toxicity so far.

Source: detoxification by dense rewards, arXiv 2306.01693: the reward after sentence j is
    -(toxicity(y up to j) - toxicity(y up to j-1)), and the sum over a response is -toxicity(y).
"""

from collections.abc import Sequence
from dataclasses import replace

from reward_service.core.source import ScoreSource, SourceOutcome, WrappingSource, spans_for
from reward_service.domain import ItemScore, ModelCard, ScoredSpan, Span, TextItem
from reward_service.errors import ServiceError

OK_OF_NOTHING = 1.0
"""The score of the empty prefix: nothing is not toxic."""

Prefix = tuple[str, str, tuple[tuple[str, str], ...]]
"""What an inner score depends on: prompt, text and fields."""


class PrefixDifferenceSource(WrappingSource):
    """Scores each segment by the difference that it makes to the score of the text up to its end.

    A prefix that occurs several times in one request is scored once. A response with a prefix that could not be scored
    has that prefix's error.

    Args:
        card: The model that is served: a regressor over segments.
        inner: Scores whole texts; its one model's score is 1 - toxicity.
    """

    def __init__(self, card: ModelCard, inner: ScoreSource) -> None:
        super().__init__(inner)
        self._card = card

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """The model that is served."""
        return (self._card,)

    async def score(self, items: Sequence[TextItem], deadline_s: float | None, job: str = "") -> SourceOutcome:
        """See `core.source.ScoreSource`."""
        divided = [self._divide(item) for item in items]
        prefixes: dict[Prefix, TextItem] = {}
        for item, spans in zip(items, divided, strict=True):
            if not isinstance(spans, ServiceError):
                prefixes.update((_prefix(item, span), _up_to(item, span)) for span in spans)
        if not prefixes:
            return SourceOutcome(tuple((_difference(spans, []),) for spans in divided))
        outcome = await self._inner.score(list(prefixes.values()), deadline_s, job)
        known = {key: results[0] for key, results in zip(prefixes, outcome.results, strict=True)}
        scores = [
            _difference(spans, [] if isinstance(spans, ServiceError) else [known[_prefix(item, s)] for s in spans])
            for item, spans in zip(items, divided, strict=True)
        ]
        return replace(outcome, results=tuple((score,) for score in scores))

    def _divide(self, item: TextItem) -> tuple[Span, ...] | ServiceError:
        try:
            return spans_for(self._card, item)
        except ServiceError as error:
            return error


def _prefix(item: TextItem, span: Span) -> Prefix:
    return item.prompt, item.response[: span.end], tuple(sorted(item.fields.items()))


def _up_to(item: TextItem, span: Span) -> TextItem:
    return TextItem(item.prompt, item.response[: span.end], item.fields)


def _difference(
    spans: tuple[Span, ...] | ServiceError, prefixes: Sequence[ItemScore | ServiceError]
) -> ItemScore | ServiceError:
    """Turn the prefixes' scores into the segments'.

    Args:
        spans: The S segments of a response, or why it has none.
        prefixes: The S scores 1 - toxicity of the text up to each segment's end.
    """
    if isinstance(spans, ServiceError):
        return spans
    before = OK_OF_NOTHING
    segments = []
    truncated_tokens = 0
    cached = bool(spans)
    for span, prefix in zip(spans, prefixes, strict=True):
        if isinstance(prefix, ServiceError):
            return prefix
        assert prefix.sequence_score is not None  # noqa: S101 - a sequence model scores any text
        logits = prefix.segments[0].logits if prefix.segments else ()
        segments.append(ScoredSpan(span, prefix.sequence_score - before, None, logits))
        before = prefix.sequence_score
        truncated_tokens = max(truncated_tokens, prefix.truncated_tokens)
        cached = cached and prefix.cached
    return ItemScore(tuple(segments), before - OK_OF_NOTHING if segments else None, truncated_tokens, cached)
