"""Invariant 10: token rewards sum to the weighted segment rewards, and every end sits on the token that holds it."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_client.algorithms.token_rewards import AlignmentError, end_token_index, place_rewards

ALPHABET = "ab.,  \n\té👍🏽e\u0301中\U0001f469\u200d\U0001f52c"
TEXTS = st.text(alphabet=ALPHABET, min_size=1, max_size=40)


def cut_bytes(text: str, cuts: list[int]) -> list[bytes]:
    """The text's UTF-8 in pieces, as a byte-level tokenizer might sample it: a cut may fall inside a character."""
    data = text.encode()
    bounds = [0, *sorted({cut % (len(data) + 1) for cut in cuts} - {0, len(data)}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


def offsets_of(pieces: list[bytes]) -> list[tuple[int, int]]:
    """What decoding token after token gives: a character counts once its last byte is there."""
    offsets, seen, done = [], b"", 0
    for piece in pieces:
        seen += piece
        characters = len(seen.decode(errors="ignore"))
        offsets.append((done, characters))
        done = characters
    return offsets


def wide_offsets_of(pieces: list[bytes]) -> list[tuple[int, int]]:
    """What byte-level tokenizers report: each piece of a character has the whole width of it."""
    owner = [index for index, character in enumerate(b"".join(pieces).decode()) for _ in character.encode()]
    offsets, position = [], 0
    for piece in pieces:
        offsets.append((owner[position], owner[position + len(piece) - 1] + 1))
        position += len(piece)
    return offsets


def piece_with_last_byte(text: str, pieces: list[bytes], span_end: int) -> int:
    """The slow reference: which piece holds the last byte of the character before `span_end`."""
    last_byte = len(text[:span_end].encode()) - 1
    position = 0
    for index, piece in enumerate(pieces):
        position += len(piece)
        if last_byte < position:
            return index
    raise AssertionError("past the text")


def segments_of(text: str) -> list[tuple[int, int]]:
    """Trimmed pieces between punctuation marks."""
    return [match.span() for match in re.finditer(r"[^\s.,](?:[^.,]*[^\s.,])?[.,]*", text)]


@given(TEXTS, st.lists(st.integers(min_value=0, max_value=400), max_size=60))
def test_every_end_is_on_the_token_with_its_last_byte(text: str, cuts: list[int]) -> None:
    pieces = cut_bytes(text, cuts)
    for offsets in (offsets_of(pieces), wide_offsets_of(pieces)):
        for _, end in segments_of(text):
            assert end_token_index(offsets, end) == piece_with_last_byte(text, pieces, end)


@given(
    TEXTS,
    st.lists(st.integers(min_value=0, max_value=400), max_size=60),
    st.lists(st.floats(min_value=-3, max_value=3, width=32), min_size=3, max_size=3),
    st.data(),
)
def test_token_rewards_sum_to_the_weighted_segment_rewards(
    text: str, cuts: list[int], weights: list[float], data: st.DataObject
) -> None:
    offsets = [*offsets_of(cut_bytes(text, cuts)), (len(text), len(text))]  # and an eos
    ends, rewards = [], []
    for weight in weights[:2]:
        for _, end in segments_of(text):
            ends.append(end_token_index(offsets, end))
            rewards.append(weight * data.draw(st.floats(min_value=-2, max_value=2, width=32)))
    ends.append(len(offsets) - 1)
    rewards.append(weights[2])
    placed = place_rewards(len(offsets), ends, rewards)
    assert placed.sum().item() == pytest.approx(sum(rewards), rel=1e-5, abs=1e-4)
    untouched = set(range(len(offsets))) - set(ends)
    assert all(placed[index].item() == 0.0 for index in untouched)


def test_figures_by_hand() -> None:
    # "Hi 👍. Yes,  no" sampled as: Hi|␣|👍 in 2 byte pieces|. Y|es|,␣␣n|o|<eos>
    text = "Hi 👍. Yes,  no"
    offsets = [(0, 2), (2, 3), (3, 3), (3, 4), (4, 7), (7, 9), (9, 13), (13, 14), (14, 14)]
    assert text[4:7] == ". Y"
    spans = [(0, 5), (6, 10), (12, 14)]
    assert [text[start:end] for start, end in spans] == ["Hi 👍.", "Yes,", "no"]
    ends = [end_token_index(offsets, end) for _, end in spans]
    assert ends == [4, 6, 7]
    placed = place_rewards(len(offsets), [*ends, 8], [0.3, -0.3, 0.3, 1.0])
    assert placed.tolist() == pytest.approx([0, 0, 0, 0, 0.3, 0, -0.3, 0.3, 1.0])


def test_two_segments_that_end_in_one_token_add_up() -> None:
    # "a.b." where one token holds ".b."
    offsets = [(0, 1), (1, 4)]
    ends = [end_token_index(offsets, 2), end_token_index(offsets, 4)]
    assert ends == [1, 1]
    assert place_rewards(2, ends, [0.5, 0.25]).tolist() == [0.0, 0.75]


def test_a_cut_off_response_never_moves_an_end_back() -> None:
    offsets = [(0, 3), (3, 6)]  # the sampling stopped here; a segment that goes on is a fault, not the last token's
    with pytest.raises(AlignmentError):
        end_token_index(offsets, 9)
