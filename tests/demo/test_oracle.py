"""The oracle's judgements of answers written by hand."""

import random

import pytest

from demo.oracle import annotate, judge
from demo.world import Question

QUESTION = Question(
    name="Aldora",
    asked=("color", "drink", "dance"),
    facts={"color": "red", "drink": "tea", "dance": "polka", "origin": "Peru", "emblem": "wolf"},
    text="What are the color, drink and dance of Aldora?",
    passages=(
        ("Aldora", "The color of Aldora is red.", "For its drink Aldora has tea."),
        ("Aldora", "The dance of Aldora is polka.", "The origin of Aldora is Peru.", "For its emblem Aldora has wolf."),
    ),
)


def errors_of(answer: str) -> list[tuple[str | None, str | None]]:
    return [(clause.relevance_error, clause.factual_error) for clause in judge(QUESTION, answer).clauses]


def test_a_right_answer_has_no_fault():
    found = judge(QUESTION, "The color of it is red, and for its drink it has tea. The dance of it is polka.")
    assert found.faults == 0
    assert found.sentences == 2
    assert found.wrong_sentences == 0
    assert found.covered == QUESTION.asked


@pytest.mark.parametrize(
    ("answer", "errors"),
    [
        ("The color of it is blue.", [(None, "Wrong-Grounding")]),
        ("The season of it is spring.", [("Irrelevant", "Unverifiable")]),
        ("The origin of it is Peru.", [("Irrelevant", None)]),
        ("The origin of it is Japan.", [("Irrelevant", "Wrong-Grounding")]),
        ("The color of it is red, and for its color it has red.", [(None, None), ("Redundant", None)]),
        ("This is really good to know.", [("Irrelevant", None)]),
        ("The color of it is tea.", [("Incoherent", None)]),
        ("Color color red.", [("Incoherent", None)]),
        ("", []),
        (" . , ", []),
    ],
)
def test_each_kind_of_error(answer, errors):
    assert errors_of(answer) == errors


def test_spans_are_the_clauses_with_their_marks():
    answer = "The color of it is blue, and the dance of it is polka.  The origin of it is Peru"
    texts = [answer[clause.start : clause.end] for clause in judge(QUESTION, answer).clauses]
    assert texts == ["The color of it is blue,", "and the dance of it is polka.", "The origin of it is Peru"]


def test_a_sentence_is_wrong_once_however_many_of_its_clauses_are():
    found = judge(QUESTION, "The color of it is blue, and the dance of it is jig. The drink of it is tea.")
    assert (found.sentences, found.wrong_sentences) == (2, 1)
    # Two wrong statements, and color and dance are missing.
    assert found.faults == 4


def test_feedback_marks_errors_missing_information_and_preferences():
    right = "The color of it is red, and for its drink it has tea. The dance of it is polka."
    poor = "The color of it is blue, and the origin of it is Peru."
    example = annotate(QUESTION, [poor, right, right, poor], random.Random(0))
    marked = [(error.error_type, poor[error.start : error.end]) for error in example.feedback.errors]
    assert marked == [
        ("Wrong-Grounding", "The color of it is blue,"),
        ("Irrelevant", "and the origin of it is Peru."),
    ]
    # Passage and sentence numbers count from 1, the title being sentence 0.
    places = [(missing.passage_id, missing.sentence_id) for missing in example.feedback.missing_info]
    assert places == [(1, [1]), (1, [2]), (2, [1])]
    assert example.preference == [2, 2, 0, 0, 1, 1]
