"""Marking spans of a response, with the mouse and by keyboard."""

from typing import Any

from tests.reward_service.annotation.conftest import RESPONSE
from tests.reward_service.web.annotate.window import Running, drag, marked, open_page, select, wait_saved


def test_spans_are_code_points_whatever_the_text_holds(page: Any, running: Running) -> None:
    open_page(page, running, "points")
    drag(page, 7, 24)  # day. over both kinds of line break to the end of `in`
    page.get_by_role("button", name="1 Irrelevant").click()
    wait_saved(page)
    select(page, 32, 39)
    page.keyboard.press("5")
    wait_saved(page)
    assert marked(page) == ["Irrelevant|day.\nIt ended\r\nin", "Unverifiable|🎉 two."]
    errors = running.kept("points")[0].feedback.errors
    assert [(error.start, error.end) for error in errors] == [(5, 22), (30, 36)]
    assert [RESPONSE[error.start : error.end] for error in errors] == ["day.\nIt ended\r\nin", "🎉 two."]
    select(page, 32, 39)  # What is selected is what was marked, however often the text was cut.
    assert page.evaluate("getSelection().toString()") == "🎉 two."


def test_no_span_ends_inside_a_character_or_in_white_space(page: Any, running: Running) -> None:
    open_page(page, running, "edges")
    found = page.evaluate(
        """async (text) => {
            const { spanOf, spanAt } = await import('/annotate/spans.js');
            const spans = [[0, 3], [3, 4], [3, 5], [6, 12], [6, 7], [0, text.length], [5, 5]];
            return [spans.map(([start, end]) => spanOf(text, start, end)), spanAt(text, 3, [{ start: 2, end: 3 }])];
        }""",
        RESPONSE,
    )
    expected = [(0, 3), (2, 3), (2, 4), (5, 9), None, (0, 36), None]
    assert [None if one is None else (one["start"], one["end"]) for one in found[0]] == expected
    assert found[1] == {"start": 2, "end": 3}


def test_the_keyboard_marks_changes_and_removes(page: Any, running: Running) -> None:
    open_page(page, running, "keys")
    page.focus("#response")
    page.keyboard.press("Control+Home")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("1")
    assert marked(page) == ["Irrelevant|A"]
    page.keyboard.press("2")  # The same span, another type.
    assert marked(page) == ["Redundant|A"]
    page.keyboard.type("changes nothing")
    page.keyboard.press("Enter")
    assert page.locator("#response").evaluate("area => area.textContent") == RESPONSE
    page.keyboard.press("Control+Home")
    page.keyboard.press("Delete")
    assert marked(page) == []
    page.keyboard.press("Control+z")
    assert marked(page) == ["Redundant|A"]
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert marked(page) == []
    assert page.locator("#undo").is_disabled()
    page.keyboard.press("Control+Shift+z")
    assert marked(page) == ["Irrelevant|A"]
    page.locator(".entry").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("3")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("1")
    page.keyboard.press("Delete")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    wait_saved(page)
    kept, done = running.kept("keys")
    assert [(entry.passage_id, entry.sentence_id, entry.error_type) for entry in kept.feedback.missing_info] == [
        (1, [1], "Missing-Minor-Auxiliary")
    ]
    assert not done
