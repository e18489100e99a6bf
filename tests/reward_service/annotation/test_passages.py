import pytest

from reward_service.annotation.passages import divide_text, join_passages, missing_at
from tests.reward_service.annotation.conftest import PASSAGES

JOINED = "Day 🌞\nIt was long.\nIt ended at six.\n\nSharp.\n\n\nNobody knows."


def test_each_entry_lies_where_it_is_said_to() -> None:
    text, entries = join_passages(PASSAGES)
    assert text == JOINED
    assert [text[entry.start : entry.end] for entry in entries] == [one for passage in PASSAGES for one in passage]
    assert [(entry.passage_id, entry.sentence) for entry in entries] == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    assert join_passages([]) == ("", [])


def places(part: str) -> list[tuple[int, list[int]]]:
    text, entries = join_passages(PASSAGES)
    start = text.index(part)
    return [(one.passage_id, one.sentence_id) for one in missing_at(entries, start, start + len(part), "t")]


def test_a_span_means_the_sentences_that_it_covers() -> None:
    assert places("It was long.") == [(1, [1])]
    assert places("was") == [(1, [1])], "a part of a sentence means it"
    assert places("long.\nIt ended at six.\n\nSharp.") == [(1, [2])], "5 of 12 letters are an edge"
    assert places("was long.\nIt ended at six.") == [(1, [1]), (1, [2])]
    assert places(JOINED) == [(1, [0]), (1, [1]), (1, [2]), (2, [1])]
    with pytest.raises(ValueError, match="no sentence"):
        missing_at(join_passages(PASSAGES)[1], 5, 6, "t")


def test_a_text_is_divided_into_passages_and_sentences() -> None:
    assert divide_text("One is here. Two is there.\n\nThree 🎉.") == (
        ("", "One is here.", "Two is there."),
        ("", "Three 🎉."),
    )
    assert divide_text(" \n") == ()
