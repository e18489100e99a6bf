"""The page in headless Chromium against a real service: what an annotator sees and does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from reward_service.annotation.annotation import Annotation
from reward_service.keys import hash_key
from tests.reward_service.annotation.conftest import RESPONSE
from tests.reward_service.web.annotate.window import HOSTILE, Running, marked, open_page, select, wait_saved


def test_what_was_typed_outlives_a_reload_and_a_restart(page: Any, running: Running) -> None:
    open_page(page, running, "reload")
    select(page, 7, 11)
    page.keyboard.press("4")
    page.fill("#spans input", "says who? 🧐")
    page.click("#copy")
    page.keyboard.type(" More.")
    page.locator(".entry").nth(1).click()
    page.keyboard.press("Alt+r")
    page.keyboard.press("2")
    wait_saved(page)
    for again in (page.reload, lambda: (running.restart(), page.reload())):
        again()
        page.locator("#place", has_text="1 of 3, draft").wait_for()
        assert page.input_value("#name") == "reload"
        assert marked(page) == ["Wrong-Grounding: says who? 🧐|day."]
        assert page.input_value("#spans input") == "says who? 🧐"
        shown = page.input_value("#corrected")
        assert shown == RESPONSE.replace("\r\n", "\n") + " More.", "a text area has one kind of line break"
        assert page.locator(".entry[aria-pressed=true]").all_inner_texts() == ["It was long."]
        page.keyboard.press("Alt+r")
        assert page.locator("#pairs [aria-pressed=true]").all_inner_texts() == ["2 is better"]


def test_what_could_not_be_saved_is_saved_when_the_service_is_back(page: Any, running: Running) -> None:
    open_page(page, running, "away")
    port = int(running.process.url.rpartition(":")[2])
    assert running.process.end() == 0
    select(page, 7, 11)
    page.keyboard.press("1")
    page.locator("#saved", has_text="not saved: the service does not answer").wait_for()
    page.locator(".entry").nth(1).click()
    running.process = running._start(**{**running._settings, "port": port})
    wait_saved(page)
    kept, _ = running.kept("away")
    assert (len(kept.feedback.errors), len(kept.feedback.missing_info)) == (1, 1)


def test_pairs_are_ranked_by_key_and_by_mouse(page: Any, running: Running) -> None:
    open_page(page, running, "rank")
    page.keyboard.press("Alt+r")
    for key in ("1", "3", "0", "2"):  # 1 beats 2, 3 beats 1, 1 and 4 are equal, 2 beats 3: in a circle.
        page.keyboard.press(key)
    assert page.locator("#cycle").is_visible()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("3")  # 3 beats 2 after all.
    assert page.locator("#cycle").is_hidden()
    page.keyboard.press("Control+Enter")
    page.locator("#saved", has_text="2 of 6 pairs are undecided").wait_for()
    assert running.kept("rank") == (Annotation(preference=[1, 2, 0, 2, None, None]), False)
    page.get_by_role("button", name="4 is better").nth(1).click()
    page.get_by_role("button", name="neither").last.click()
    page.keyboard.press("Control+Enter")
    page.locator("#place", has_text="2 of 3, new").wait_for()
    assert running.kept("rank") == (Annotation(preference=[1, 2, 0, 2, 2, 0]), True)
    page.keyboard.press("Alt+ArrowLeft")
    page.locator("#place", has_text="1 of 3, done").wait_for()
    page.locator(".entry").nth(1).click()  # What is changed is a draft again.
    page.locator("#place", has_text="1 of 3, draft").wait_for()


def test_texts_never_become_markup(page: Any, running: Running) -> None:
    open_page(page, running, "<b>hostile</b>", 1)
    assert page.locator("#question").evaluate("element => element.textContent") == HOSTILE
    assert page.locator("#response").evaluate("element => element.textContent") == HOSTILE
    page.focus("#response")
    page.keyboard.press("Control+a")
    page.keyboard.press("1")
    page.fill("#spans input", HOSTILE.replace("\x07", ""))
    page.fill("#corrected", HOSTILE)
    wait_saved(page)
    page.keyboard.press("Alt+r")
    assert page.locator("#answers .text").first.evaluate("element => element.textContent") == HOSTILE
    assert page.locator("main img, main script").count() == 0
    (error,) = running.kept("<b>hostile</b>", 1)[0].feedback.errors
    assert HOSTILE[error.start : error.end] == HOSTILE


def test_a_single_response_is_not_ranked(page: Any, running: Running) -> None:
    open_page(page, running, "single", 2)
    assert page.locator("#tab-rank").is_disabled()
    page.keyboard.press("Alt+r")
    assert page.locator("#rank").is_hidden()


def test_a_second_window_does_not_overwrite_the_first(page: Any, running: Running) -> None:
    open_page(page, running, "twice")
    other = page.context.new_page()
    open_page(other, running, "twice")
    select(page, 7, 11)
    page.keyboard.press("1")
    wait_saved(page)
    other.locator(".entry").nth(1).click()
    other.locator("#saved", has_text="changed elsewhere").wait_for()
    kept, _ = running.kept("twice")
    assert (len(kept.feedback.errors), len(kept.feedback.missing_info)) == (1, 0)
    other.close(run_before_unload=False)


def test_agreement_and_download(page: Any, running: Running, tmp_path: Path) -> None:
    for who in ("first", "second"):
        open_page(page, running, who, 2)
        page.focus("#response")
        page.keyboard.press("Control+Home")
        page.keyboard.press("Shift+Control+ArrowRight")
        page.keyboard.press("1")
        page.keyboard.press("Control+Enter")
        page.locator("#state", has_text="1 of").wait_for()
    page.locator("#agreement", has_text="relevance 1.00, factuality –").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="QA-Feedback").click()
    assert download.value.suggested_filename == "qa_feedback.json"
    download.value.save_as(tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    alone = [one for one in found if one["question"] == "Alone?"]
    assert [one["feedback"]["errors"][0]["end"] for one in alone] == [3, 3]


def test_a_key_is_asked_for_and_names_its_annotator(
    page: Any, start_service: Callable[..., Any], tiny_store: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.yaml"
    entry = {"id": "a", "role": "annotate", "job": "anna", "sha256": hash_key("annas")}
    keys.write_text(yaml.safe_dump({"keys": [entry]}))
    running = Running(start_service, tiny_store, tmp_path, auth={"keys": str(keys)})
    page.goto(f"{running.process.url}/annotate#annotator=bob")
    page.locator("#state", has_text="API key").wait_for()
    page.fill("#key", "annas")
    page.press("#key", "Tab")
    page.locator("#place", has_text="1 of 3").wait_for()
    assert page.input_value("#name") == "anna"
    select(page, 7, 11)
    page.keyboard.press("1")
    wait_saved(page)
    assert len(running.kept("anna")[0].feedback.errors) == 1
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    assert "annas" not in page.url


def test_work_stays_its_annotators_when_the_name_changes(page: Any, running: Running) -> None:
    open_page(page, running, "before")
    page.fill("#corrected", "typed a moment ago")
    page.fill("#name", "after")
    page.press("#name", "Tab")
    page.locator("#place", has_text="1 of 3, new").wait_for()
    assert page.input_value("#corrected") == ""
    assert running.kept("before")[0].feedback.corrected_prediction == "typed a moment ago"
    page.reload()
    page.locator("#place", has_text="1 of 3").wait_for()
    assert page.input_value("#name") == "after"
