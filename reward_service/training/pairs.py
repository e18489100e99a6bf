"""Which prediction of an example beats which: by human preference, or by coverage of the passages. Pure."""

import re
from collections.abc import Iterable, Sequence
from itertools import combinations

from reward_proto.feedback import PREFERENCE_PAIRS, FeedbackExample
from reward_proto.score import Granularity
from reward_service.core.segment import segment_text
from reward_service.training.feedback import Pair, PairKind

SentenceId = tuple[int, int]
"""(passage from 0, entry in it; entry 0 is the title), as `missing-info` counts them less one for the passage."""

_FUNCTION_WORDS = (
    "a an and are as at be been but by for from had has have he her his i in into is it its of on or she so such that "
    "the their them then there these they this to was we were which who whom will with would you"
)
STOP_WORDS = frozenset(_FUNCTION_WORDS.split())
"""English function words, which say nothing of what a sentence is about."""

_TOKEN = re.compile(r"\w+")


def preference_pairs(example: FeedbackExample) -> tuple[Pair, ...]:
    """The pairs that people decided; ties and predictions with the same text teach nothing.

    Source: arXiv 2306.01693.
    """
    texts = example.predictions
    pairs = []
    for (first, second), choice in zip(PREFERENCE_PAIRS, example.preference, strict=False):
        if choice and texts[first - 1] != texts[second - 1]:
            pairs.append((first - 1, second - 1) if choice == 1 else (second - 1, first - 1))
    return tuple(pairs)


def coverage_pairs(example: FeedbackExample, similarity: float) -> tuple[Pair, ...]:
    """The pairs of predictions that cover different numbers of relevant passage sentences; more wins.

    Predictions with the same text teach nothing, also where what is listed as missing sets the first one apart; nor
    does a blank one, which stands for a response that nobody gave.

    Source: arXiv 2306.01693 (completeness), with a lexical in place of a neural similarity.
    """
    covered = coverage_counts(example, similarity)
    texts = example.predictions
    given = [index for index, text in enumerate(texts) if text.strip()]
    return tuple(
        (first, second) if covered[first] > covered[second] else (second, first)
        for first, second in combinations(given, 2)
        if covered[first] != covered[second] and texts[first] != texts[second]
    )


def coverage_counts(example: FeedbackExample, similarity: float) -> tuple[int, ...]:
    """How many relevant passage sentences each prediction covers.

    Relevant are the sentences that the corrected prediction (or the gold answer where there is none) covers, and
    those listed as missing. What the annotator lists as missing counts as not covered by prediction 1.

    Args:
        example: With passages and feedback.
        similarity: From which share of a sub-sentence's content words on a passage sentence counts as covered.

    Returns:
        Four counts.
    """
    sentences = {
        (number, index): content_words(sentence)
        for number, passage in enumerate(example.passages)
        for index, sentence in enumerate(passage)
        if index > 0
    }
    missing = {
        (entry.passage_id - 1, sentence) for entry in example.feedback.missing_info for sentence in entry.sentence_id
    }
    reference = example.feedback.corrected_prediction.strip() or example.gold
    relevant = _covered(reference, sentences.items(), similarity) | missing
    candidates = [(key, words) for key, words in sentences.items() if key in relevant]
    covered = [_covered(text, candidates, similarity) for text in example.predictions]
    covered[0] -= missing
    return tuple(len(found) for found in covered)


def content_words(text: str) -> frozenset[str]:
    """Lower-cased words without punctuation and stop words."""
    return frozenset(_TOKEN.findall(text.lower())) - STOP_WORDS


def _covered(text: str, sentences: Iterable[tuple[SentenceId, frozenset[str]]], similarity: float) -> set[SentenceId]:
    """Sentences that hold at least `similarity` of the content words of one of the text's sub-sentences."""
    pieces = [content_words(text[span.start : span.end]) for span in segment_text(text, Granularity.SUB_SENTENCE)]
    return {key for key, words in sentences if any(_is_covered_by(piece, words, similarity) for piece in pieces)}


def _is_covered_by(piece: frozenset[str], words: frozenset[str], similarity: float) -> bool:
    return bool(piece) and len(piece & words) >= similarity * len(piece)


def pairs_of(examples: Sequence[FeedbackExample], kind: PairKind, similarity: float) -> list[tuple[Pair, ...]]:
    """The pairs of every example, by `kind`: `preference` or `coverage`."""
    if kind == "preference":
        return [preference_pairs(example) for example in examples]
    return [coverage_pairs(example, similarity) for example in examples]
