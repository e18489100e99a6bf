import pytest

from rl_client.offline.text_figures import RougeLsum, count_words, distinct_ngrams


def test_words():
    assert count_words("  a b\nc ") == 3
    assert count_words("") == 0


def test_distinct_ngrams_by_hand():
    # ab ba ab | ab bc: {ab, ba, bc} over 4 + 3 words
    assert distinct_ngrams(["a b a b", "a b c"], 2) == pytest.approx(3 / 7)
    # aba bab | abc
    assert distinct_ngrams(["a b a b", "a b c"], 3) == pytest.approx(3 / 7)
    assert distinct_ngrams(["a"], 2) == 0.0
    assert distinct_ngrams(["", " "], 2) is None


def test_rouge_by_hand():
    rouge = RougeLsum()
    # Longest common subsequence "a b" of three words on either side.
    assert rouge.score("a b c", ["a b d"]) == pytest.approx(2 / 3)
    assert rouge.score("a b c", ["x", "a b c", "y"]) == pytest.approx(1.0)
    assert rouge.score("", ["a"]) == 0.0
    # Sentences in another order: as one line the common subsequence would be one sentence.
    assert rouge.score("One two. Three four.", ["Three four. One two."]) == pytest.approx(1.0)
