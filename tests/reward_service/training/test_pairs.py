from typing import Any

import pytest

from reward_proto.feedback import FeedbackExample
from reward_service.training.pairs import content_words, coverage_counts, coverage_pairs, pairs_of, preference_pairs

BORN = "Ada Lovelace was born in London in 1815."
WROTE = "She wrote the first published program."
DIED = "Lovelace died of cancer in Marylebone."


def example(predictions: list[str] | None = None, **changes: Any) -> FeedbackExample:
    given = {f"prediction {i}": text for i, text in enumerate(predictions or ["a", "b", "c", "d"], start=1)}
    content = {
        "question": "Who was Ada?",
        "passages": [["Ada Lovelace", BORN, WROTE], ["Ada Lovelace", DIED]],
        "gold": "",
        "feedback": {"errors": [], "missing-info": [], "corrected-prediction": ""},
        **given,
        **changes,
    }
    return FeedbackExample.model_validate(content)


def test_preferences_in_the_files_order() -> None:
    # 1v2 first, 1v3 second, 1v4 none, 2v3 first, 2v4 second, 3v4 first.
    assert preference_pairs(example(preference=[1, 2, 0, 1, 2, 1])) == ((0, 1), (2, 0), (1, 2), (3, 1), (2, 3))
    assert preference_pairs(example()) == ()


def test_a_text_does_not_beat_itself() -> None:
    assert preference_pairs(example(["a", "a", "b", "c"], preference=[1, 1, 0, 0, 0, 0])) == ((0, 2),)


def test_content_words() -> None:
    assert content_words("It was the FIRST program, in 1815!") == {"first", "program", "1815"}


def test_coverage_by_hand() -> None:
    predictions = [
        "Ada Lovelace was born in London in 1815. She wrote the first published program.",  # both
        "Lovelace was born in London.",  # the first
        "Nothing of it is known here.",  # none
        "She wrote the first published program.",  # the second
    ]
    feedback = {"errors": [], "missing-info": [], "corrected-prediction": BORN + " " + WROTE}
    counts = coverage_counts(example(predictions, feedback=feedback), 0.85)
    assert counts == (2, 1, 0, 1)
    assert coverage_pairs(example(predictions, feedback=feedback), 0.85) == ((0, 1), (0, 2), (0, 3), (1, 2), (3, 2))
    predictions[2] = " \n"  # nobody gave it
    assert coverage_pairs(example(predictions, feedback=feedback), 0.85) == ((0, 1), (0, 3))


def test_what_is_listed_as_missing_is_relevant_and_not_covered_by_the_first_prediction() -> None:
    texts = [BORN + " " + DIED, BORN + " " + DIED, BORN, DIED]
    # Passage ids count from 1; a passage's sentences too, as its entry 0 is the title.
    missing = [{"error type": "Missing-Answer", "passage_id": 2, "sentence_id": [1]}]
    feedback = {"errors": [], "missing-info": missing, "corrected-prediction": BORN}
    assert coverage_counts(example(texts, feedback=feedback), 0.85) == (1, 2, 1, 1)


def test_the_gold_answer_stands_in_for_a_missing_correction() -> None:
    assert coverage_counts(example([BORN, "x", "x", "x"], gold=BORN), 0.85) == (1, 0, 0, 0)
    assert coverage_counts(example([BORN, "x", "x", "x"]), 0.85) == (0, 0, 0, 0)


@pytest.mark.parametrize(("similarity", "covered"), [(0.75, 1), (0.76, 0)])
def test_the_similarity_is_the_share_of_the_sub_sentences_content_words(similarity: float, covered: int) -> None:
    # Content words: lovelace, born, paris, 1815; three of the four are in the passage sentence.
    text = "Lovelace was born in Paris in 1815."
    assert coverage_counts(example([text, "x", "x", "x"], gold=BORN), similarity)[0] == covered


def test_a_title_is_no_passage_sentence() -> None:
    assert coverage_counts(example(["Ada Lovelace", "x", "x", "x"], gold="Nothing"), 0.85) == (0, 0, 0, 0)


def test_words_of_no_content_cover_nothing() -> None:
    assert coverage_counts(example(["It was so.", "", " ", "!?"], gold=BORN), 0.85) == (0, 0, 0, 0)


def test_pairs_of_chooses_the_kind() -> None:
    texts = [BORN, "x", "x", "x"]
    one = example(texts, gold=BORN, preference=[2, 0, 0, 0, 0, 0])
    assert pairs_of([one], "preference", 0.85) == [((1, 0),)]
    assert pairs_of([one], "coverage", 0.85) == [((0, 1), (0, 2), (0, 3))]
