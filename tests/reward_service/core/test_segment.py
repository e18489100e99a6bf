from typing import Any

import pytest
import sentencex
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_proto.score import Granularity
from reward_service.core.segment import BLOCK_CHARS, MAX_SEGMENTS, MIN_SUB_SENTENCE_WORDS, check_spans, segment_text
from reward_service.domain import Span
from reward_service.errors import InvalidRequestError, TooLongError

PIECES = [
    "Dr. Smith", "e.g.", "U.S.", "word", "Five", "naïve", "e\u0301", "👩‍👩‍👧", "🎉", "B", "\u3000", "\u2028", "\u00a0",
    "\x85", "\x1c", "\r\n", "\n", "\n\n", "\r\n\r\n", " ", "  ", "\t", ".", "!", "?", ",", ";", "...", "“", "”", '"',
    "(", ")", "。", "\u200b", "\x00", "\U0010ffff", "3.14", "a.b@c.de",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=80
)


def pieces(text: str, granularity: Granularity) -> list[str]:
    return [text[span.start : span.end] for span in segment_text(text, granularity)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Smith came. He left.", ["Dr. Smith came.", "He left."]),
        ("By fruit, e.g. apples, we live. Yes.", ["By fruit, e.g. apples, we live.", "Yes."]),
        ("Party 🎉 time! The nai\u0308ve came.", ["Party 🎉 time!", "The nai\u0308ve came."]),
        ("One here.\r\nTwo there.", ["One here.", "Two there."]),
        ("  One here.   Two there.  ", ["One here.", "Two there."]),
        ('He said "Stop. Now." and left. She stayed.', ['He said "Stop. Now." and left.', "She stayed."]),
        ("First line\n\nSecond paragraph", ["First line", "Second paragraph"]),
        ("word", ["word"]),
    ],
)
def test_sentences_by_hand(text: str, expected: list[str]) -> None:
    assert pieces(text, Granularity.SENTENCE) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Five words before the comma: a piece of its own.
        ("One two three four five, six seven eight nine x.", ["One two three four five,", "six seven eight nine x."]),
        # Four before the comma: they join what follows.
        ("One two three four, five six seven eight nine.", ["One two three four, five six seven eight nine."]),
        # The last piece has four: it joins the one before.
        ("One two three four five; six seven eight nine.", ["One two three four five; six seven eight nine."]),
        # A short piece in the middle joins the following one, not the one before.
        (
            "a1 a2 a3 a4 a5, b1 b2, c1 c2 c3 c4 c5, d1 d2 d3 d4 d5.",
            ["a1 a2 a3 a4 a5,", "b1 b2, c1 c2 c3 c4 c5,", "d1 d2 d3 d4 d5."],
        ),
        # A comma inside a word, or before a quotation mark, ends no word.
        ('Some 1,000 of the people, he said "yes," and they all went.',
         ["Some 1,000 of the people,", 'he said "yes," and they all went.']),
        # Never across sentences, short as they are.
        ("Yes. No, never.", ["Yes.", "No, never."]),
    ],
)  # fmt: skip
def test_sub_sentences_by_hand(text: str, expected: list[str]) -> None:
    assert pieces(text, Granularity.SUB_SENTENCE) == expected


def test_paragraphs_are_parted_by_blank_lines() -> None:
    text = " One.\nStill one.\n \t\nTwo.\r\n\r\nThree.\n"
    assert pieces(text, Granularity.PARAGRAPH) == ["One.\nStill one.", "Two.", "Three."]


def test_the_sequence_is_the_trimmed_whole() -> None:
    assert segment_text(" \n a b. c \n", Granularity.SEQUENCE) == (Span(3, 9),)


@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("text", ["", " ", "\r\n\t", "\u3000\u2028", "\x1c"])
def test_blank_text_has_no_segments(text: str, granularity: Granularity) -> None:
    assert segment_text(text, granularity) == ()


@pytest.mark.parametrize("granularity", Granularity)
@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_spans_are_ordered_trimmed_and_cover_all_but_white_space(granularity: Granularity, text: str) -> None:
    end = 0
    for span in segment_text(text, granularity):
        assert text[end : span.start].strip() == ""
        piece = text[span.start : span.end]
        assert piece
        assert piece == piece.strip()
        end = span.end
    assert text[end:].strip() == ""


@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_sub_sentences_refine_sentences(text: str) -> None:
    fine = segment_text(text, Granularity.SUB_SENTENCE)
    for sentence in segment_text(text, Granularity.SENTENCE):
        inside = [span for span in fine if sentence.start <= span.start < sentence.end]
        assert (inside[0].start, inside[-1].end) == (sentence.start, sentence.end)
        for span in inside if len(inside) > 1 else []:
            assert len(text[span.start : span.end].split()) >= MIN_SUB_SENTENCE_WORDS
        for span in inside[:-1]:
            assert text[span.end - 1] in ",;!?"


@pytest.mark.parametrize("blank", ["\u2028", "\u3000", "\u00a0", "\x85"])
def test_an_initial_before_wide_white_space_does_not_break_the_segmenter(blank: str) -> None:
    # sentencex panics on these as they are.
    text = f"He is B{blank}. Smith of the hills."
    assert "".join("".join(pieces(text, Granularity.SENTENCE)).split()) == "HeisB.Smithofthehills."


@pytest.mark.parametrize(
    ("unit", "chars"),
    [
        ("This is a sentence, ok then. ", 50_000),
        ("a", 50_000),
        ("🎉 x. ", 8_000),
        ('"', 12_000),
        ("a\n\n", 50_000),
        (", ", 40_000),
        ("Dr. ", 20_000),
        ("\n", 50_000),
    ],
)
@pytest.mark.parametrize("granularity", Granularity)
def test_long_texts(unit: str, chars: int, granularity: Granularity) -> None:
    text = (unit * chars)[:chars]
    covered = sum(len("".join(text[span.start : span.end].split())) for span in segment_text(text, granularity))
    assert covered == len("".join(text.split()))


@pytest.mark.parametrize("granularity", [Granularity.SENTENCE, Granularity.SUB_SENTENCE])
@pytest.mark.parametrize("unit", ["你好。", "“é. ", "🎉!"])
def test_a_paragraph_that_would_take_minutes_is_refused(unit: str, granularity: Granularity) -> None:
    text = (unit * 30_000)[:30_000]
    with pytest.raises(InvalidRequestError, match="30000 characters"):
        segment_text(text, granularity)
    for start in range(0, 30_000, 1000):  # Each paragraph begins anew.
        text = text[: start + 998] + "\n\n" + text[start + 1000 :]
    assert segment_text(text, granularity)


@pytest.mark.parametrize(
    ("unit", "chars"),
    [
        ("The fox, which was seen in 1999, jumped over Mr. Smith's lazy dog. It ran on until night fell. ", 55_000),
        ("He said — and he’s right — that the fox jumped over the lazy dog. Then it ran on until night fell. ", 28_000),
        ("L’été dernier, nous avons visité l’exposition « Lumières » à Paris. Elle était très belle, dit-on. ", 21_000),
        ("你好，世界。这是一个测试句子，我们在这里写一些文字，看看它会怎样。", 21_000),
    ],
)
def test_long_paragraphs_of_prose_are_divided(unit: str, chars: int) -> None:
    assert segment_text((unit * chars)[:chars], Granularity.SENTENCE)


@pytest.mark.parametrize(
    ("unit", "most"), [("?&", 17_320), ("`a", 8_660), ("é!", 7_744), ("`é", 3_872)], ids=["?", "`", "é!", "`é"]
)
def test_what_holds_everybody_up_for_a_tenth_of_a_second_is_the_most(unit: str, most: int) -> None:
    # Half of the characters are marks, a backtick four: chars^2 / 2 and chars^2 * 2 up to 1.5e8 and 3e7.
    assert segment_text(unit * (most // 2), Granularity.SENTENCE)
    with pytest.raises(InvalidRequestError, match="too long"):
        segment_text(unit * (most // 2 + 2), Granularity.SENTENCE)


def test_paragraphs_together_have_a_bound_too() -> None:
    paragraph = "é!" * 3_800 + "\n\n"
    assert segment_text(paragraph * 10, Granularity.SENTENCE)
    with pytest.raises(InvalidRequestError, match="too long"):
        segment_text(paragraph * 11, Granularity.SENTENCE)


@pytest.mark.parametrize("granularity", [Granularity.PARAGRAPH, Granularity.SENTENCE, Granularity.SUB_SENTENCE])
def test_a_text_has_so_many_segments_at_most(granularity: Granularity) -> None:
    assert len(segment_text("a\n\n" * MAX_SEGMENTS, granularity)) == MAX_SEGMENTS
    with pytest.raises(TooLongError, match="more than 100000 segments"):
        segment_text("a\n\n" * 1_000_000, granularity)


def test_no_more_of_a_text_is_divided_than_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reward_service.core.segment.MAX_SEGMENTS", 10)
    divided: list[int] = []
    divide = sentencex.get_sentence_boundaries

    def count(language: str, text: str) -> Any:
        divided.append(len(text))
        return divide(language, text)

    monkeypatch.setattr(sentencex, "get_sentence_boundaries", count)
    with pytest.raises(TooLongError):
        segment_text("a\n\n" * 1_000_000, Granularity.SENTENCE)
    assert sum(divided) < 2 * BLOCK_CHARS


@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(TEXTS | st.sampled_from(["", "\n", "He said “stop.", "Now.” (So", "it is.) Yes.", "[1", "2]. No."]))
)
def test_a_text_in_blocks_of_paragraphs_is_divided_as_in_one_piece(parts: list[str]) -> None:
    text = "\n\n".join(parts)
    whole = segment_text(text, Granularity.SENTENCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reward_service.core.segment.BLOCK_CHARS", 10)
        assert segment_text(text, Granularity.SENTENCE) == whole


@pytest.mark.parametrize("granularity", [Granularity.SENTENCE, Granularity.SUB_SENTENCE])
def test_lone_surrogates_are_refused(granularity: Granularity) -> None:
    with pytest.raises(InvalidRequestError, match="Unicode"):
        segment_text("One \ud800 two.", granularity)


def test_check_spans_keeps_what_is_in_order() -> None:
    spans = [Span(0, 3), Span(3, 5), Span(6, 9)]
    assert check_spans("one, two.", spans) == tuple(spans)
    assert check_spans("", []) == ()


@pytest.mark.parametrize(
    ("spans", "fault"),
    [
        ([Span(0, 0)], "empty"),
        ([Span(3, 2)], "empty"),
        ([Span(0, 10)], "outside"),
        ([Span(-1, 3)], "outside"),
        ([Span(0, 4), Span(3, 5)], "overlaps"),
        ([Span(5, 8), Span(0, 3)], "order"),
        ([Span(4, 5)], "blank"),
    ],
)
def test_check_spans_refuses(spans: list[Span], fault: str) -> None:
    with pytest.raises(InvalidRequestError, match=fault):
        check_spans("one, two.", spans)
