"""The rule-based annotator: finds every error of an answer, and so also measures the truth.

It stands for the people who wrote QA-Feedback. The reinforcement-learning runs never see it.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from demo.world import ATTRIBUTES, CLAUSE, FLUFF, Question, gold_answer
from reward_proto.feedback import (
    PREFERENCE_PAIRS,
    Feedback,
    FeedbackExample,
    MissingInfo,
    SpanError,
)

_STATEMENT = re.compile(
    r"(?:the (?P<a1>\w+) of it is (?P<v1>\w+)|for its (?P<a2>\w+) it has (?P<v2>\w+))", re.IGNORECASE
)
_VALUE_OF = {value: attribute for attribute, values in ATTRIBUTES.items() for value in values}


@dataclass(frozen=True)
class Clause:
    """One clause of an answer and what is wrong with it.

    Attributes:
        start: First code point, in the answer.
        end: One past the last.
        relevance_error: `Irrelevant`, `Redundant`, `Incoherent`, or None.
        factual_error: `Wrong-Grounding`, `Unverifiable`, or None.
    """

    start: int
    end: int
    relevance_error: str | None
    factual_error: str | None


@dataclass(frozen=True)
class Judgement:
    """Everything the oracle finds in one answer."""

    clauses: tuple[Clause, ...]
    sentences: int
    wrong_sentences: int
    covered: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def irrelevant(self) -> int:
        """How many clauses have a relevance error."""
        return sum(clause.relevance_error is not None for clause in self.clauses)

    @property
    def faults(self) -> int:
        """How much an annotator would count against the answer, all kinds of error alike."""
        wrong = sum(clause.factual_error is not None for clause in self.clauses)
        return self.irrelevant + wrong + len(self.missing)


@dataclass
class _Reader:
    question: Question
    said: set[str] = field(default_factory=set)
    covered: set[str] = field(default_factory=set)

    def read(self, text: str) -> tuple[str | None, str | None]:
        """Return the clause's relevance error and factual error, remembering what was said."""
        bare = re.sub(r"^(?:and )?", "", text.strip().rstrip(",."), flags=re.IGNORECASE)
        match = _STATEMENT.fullmatch(bare)
        if match is None:
            return ("Irrelevant" if bare.lower() in FLUFF else "Incoherent"), None
        attribute, value = match["a1"] or match["a2"], match["v1"] or match["v2"]
        if _VALUE_OF.get(value) != attribute:
            return "Incoherent", None
        factual = None
        if attribute not in self.question.facts:
            factual = "Unverifiable"
        elif self.question.facts[attribute] != value:
            factual = "Wrong-Grounding"
        relevance = None
        if attribute not in self.question.asked:
            relevance = "Irrelevant"
        elif attribute in self.said:
            relevance = "Redundant"
        self.said.add(attribute)
        if factual is None and attribute in self.question.asked:
            self.covered.add(attribute)
        return relevance, factual


def judge(question: Question, answer: str) -> Judgement:
    """Find every error of an answer.

    Args:
        question: What was asked, with the facts of its passages.
        answer: Any text.

    Returns:
        Its clauses with their errors, sentence counts, and which asked attributes it states rightly or misses.
    """
    reader = _Reader(question)
    clauses = []
    for match in CLAUSE.finditer(answer):
        text = match.group()
        start = match.start() + len(text) - len(text.lstrip())
        clauses.append(Clause(start, match.start() + len(text.rstrip()), *reader.read(text)))
    breaks = [i + 1 for i, clause in enumerate(clauses) if "." in answer[clause.start : clause.end]]
    bounds = sorted({0, *breaks, len(clauses)})
    groups = [clauses[a:b] for a, b in pairwise(bounds)]
    return Judgement(
        clauses=tuple(clauses),
        sentences=len(groups),
        wrong_sentences=sum(any(clause.factual_error for clause in group) for group in groups),
        covered=tuple(a for a in question.asked if a in reader.covered),
        missing=tuple(a for a in question.asked if a not in reader.covered),
    )


def annotate(question: Question, predictions: Sequence[str], rng: random.Random) -> FeedbackExample:
    """Write the feedback a person would: errors and missing information on the first prediction, six preferences."""
    judgements = [judge(question, prediction) for prediction in predictions]
    first = judgements[0]
    errors = [
        SpanError(error_type=kind, start=clause.start, end=clause.end)
        for clause in first.clauses
        for kind in (clause.relevance_error, clause.factual_error)
        if kind is not None
    ]
    preference = []
    for left, right in PREFERENCE_PAIRS:
        a, b = judgements[left - 1].faults, judgements[right - 1].faults
        preference.append(0 if a == b else 1 if a < b else 2)
    corrected = gold_answer(question, rng)
    return FeedbackExample(
        question=question.text,
        passages=[list(passage) for passage in question.passages],
        gold=corrected,
        prediction_1=predictions[0],
        prediction_2=predictions[1],
        prediction_3=predictions[2],
        prediction_4=predictions[3],
        feedback=Feedback(
            errors=errors, missing_info=_missing_info(question, first.missing), corrected_prediction=corrected
        ),
        preference=preference,
    )


def _missing_info(question: Question, missing: Sequence[str]) -> list[MissingInfo]:
    found = []
    for attribute in missing:
        for passage_id, passage in enumerate(question.passages, start=1):
            for sentence_id, sentence in enumerate(passage):
                words = set(re.findall(r"\w+", sentence))
                if {attribute, question.facts[attribute]} <= words:
                    found.append(
                        MissingInfo(error_type="Missing-Answer", passage_id=passage_id, sentence_id=[sentence_id])
                    )
    return found
