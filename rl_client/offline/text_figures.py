"""Figures of texts alone: length, distinct n-grams, overlap with references."""

import re
from collections.abc import Sequence

from rouge_score.rouge_scorer import RougeScorer

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def count_words(text: str) -> int:
    """Words between white space."""
    return len(text.split())


def distinct_ngrams(texts: Sequence[str], n: int) -> float | None:
    """Share of different n-grams in all responses to one prompt: higher is more varied.

    Args:
        texts: The responses.
        n: Words of an n-gram.

    Returns:
        Different n-grams over words, None without a word.

    Source: dist-n as DExperts computes it, arXiv 2105.03023: the denominator counts words.
    """
    words = [text.split() for text in texts]
    total = sum(map(len, words))
    seen = {tuple(row[start : start + n]) for row in words for start in range(len(row) - n + 1)}
    return len(seen) / total if total else None


class RougeLsum:
    """RougeLsum's F-measure, by `rouge-score` with its stemmer; sentences end at `.`, `!` or `?` before white space."""

    def __init__(self) -> None:
        self._scorer = RougeScorer(["rougeLsum"], use_stemmer=True)

    def score(self, response: str, references: Sequence[str]) -> float:
        """The best over the references, in [0, 1].

        Source: ROUGE, Lin 2004, summary level.
        """
        split = [_one_a_line(reference) for reference in references]
        return float(self._scorer.score_multi(split, _one_a_line(response))["rougeLsum"].fmeasure)


def _one_a_line(text: str) -> str:
    """The scorer takes each line as a sentence."""
    return _SENTENCE_END.sub("\n", text)
