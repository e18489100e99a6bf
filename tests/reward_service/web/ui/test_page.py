"""The page in headless Chromium against a real service: what a user sees and does."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from reward_service.keys import hash_key

SECRET = "key-of-the-test"
RESPONSE = "A 👍🏽 day, e\u0301cole; two.\nשלום עולם. <img src=x onerror=alert(1)><script>alert(2)</script> & done."


def settings(store: Path) -> dict[str, Any]:
    models = [{"name": name, "runtime": "onnxruntime"} for name in ("relevance", "factuality", "completeness")]
    return {"store": str(store), "models": models, "ui": True}


@pytest.fixture(scope="module")
def url(start_service: Callable[..., Any], tiny_store: Path) -> str:
    return str(start_service(**settings(tiny_store)).url)


def ask(page: Any, url: str, response: str, question: str = "Why?") -> None:
    page.goto(f"{url}/ui")
    page.wait_for_selector("#field-question")
    page.fill("#prompt", "p")
    page.fill("#field-question", question)
    page.fill("#response", response)
    page.click("#send")
    page.wait_for_selector("#results article, #results .fault")


def shown(page: Any, model: str) -> list[str]:
    """The texts of a model's segments, without their scores."""
    return list(
        page.locator("article", has=page.get_by_role("heading", name=model)).evaluate(
            "article => [...article.querySelectorAll('.segment')].map(segment => segment.firstChild.data)"
        )
    )


def test_each_models_segments_are_the_services(page: Any, url: str) -> None:
    ask(page, url, RESPONSE)
    item = {"prompt": "p", "response": RESPONSE, "fields": {"question": "Why?"}}
    scores = httpx.post(f"{url}/v1/score", json={"items": [item]}, timeout=60).json()["results"][0]["scores"]
    for name, score in scores.items():
        texts = [RESPONSE[segment["start"] : segment["end"]] for segment in score["segments"]]
        assert shown(page, name) == texts
        article = page.locator("article", has=page.get_by_role("heading", name=name))
        assert score["version"] in article.inner_text()
        labels = [segment["label"] for segment in score["segments"]]
        if labels[0] is not None:
            assert [text.split()[0] for text in article.locator(".score").all_inner_texts()] == labels
    assert shown(page, "factuality")[1] == "שלום עולם.", "code points, not UTF-16 units"
    assert page.locator("article img, article script").count() == 0
    assert "<script>alert(2)</script>" in page.locator("article").first.inner_text()


def test_a_score_is_told_on_hover_and_on_focus(page: Any, url: str) -> None:
    ask(page, url, "One. Two.")
    tip, segments = page.locator("#tip"), page.locator("article .segment")
    assert tip.is_hidden()
    segments.nth(0).hover()
    tip.wait_for(state="visible")
    assert re.fullmatch(r"(ok|error): [\d.e-]+\ncharacters 0 to 4", tip.inner_text())
    page.mouse.move(0, 0)
    tip.wait_for(state="hidden")
    segments.nth(0).focus()
    page.keyboard.press("Tab")
    assert "characters 5 to 9" in tip.inner_text()
    assert segments.nth(1).get_attribute("aria-describedby") == "tip"
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_models_are_chosen_and_bring_their_fields(page: Any, url: str) -> None:
    page.goto(f"{url}/ui")
    page.wait_for_selector("#field-question")
    page.uncheck("#model-relevance")
    assert page.locator("#field-question").count() == 0
    page.fill("#response", "One.")
    page.press("#response", "Control+Enter")
    page.wait_for_selector("#results article")
    assert page.locator("article h2").all_inner_texts() == ["factuality", "completeness"]


def test_errors_are_typed_each_in_its_place(page: Any, url: str) -> None:
    ask(page, url, "One.", question="")
    fault = page.locator("article", has=page.get_by_role("heading", name="relevance")).locator(".fault")
    assert "missing_field" in fault.inner_text()
    assert shown(page, "factuality") == ["One."]
    ask(page, url, "x" * 5000)
    assert "too_long" in page.locator("#results .fault").first.inner_text()
    assert "The request must be changed" in page.locator("#results .fault").first.inner_text()


def test_the_stages_times_and_what_happens_now_are_shown(page: Any, url: str) -> None:
    ask(page, url, "One.")
    assert page.locator(".stages dt").all_inner_texts() == ["tokenize", "queue", "inference", "whole"]
    assert all(re.fullmatch(r"[\d.]+ ms", text) for text in page.locator(".stages dd:not(.bar)").all_inner_texts())
    page.locator("#queues li").nth(2).wait_for()
    assert "relevance: 0 items, 0 tokens" in page.locator("#queues").inner_text()
    page.click("#send")  # Between two readings of the metrics, whose difference is shown.
    page.locator("#p50", has_text="ms").wait_for()
    assert page.locator("#p95").inner_text().endswith("ms")


def test_a_key_is_asked_for_and_kept_in_memory_only(
    page: Any, start_service: Callable[..., Any], tiny_store: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text(yaml.safe_dump({"keys": [{"id": "a", "role": "score", "sha256": hash_key(SECRET)}]}))
    process = start_service(**settings(tiny_store), auth={"keys": str(keys), "open_metrics": False})
    page.goto(f"{process.url}/ui")
    page.locator("#state", has_text="API key").wait_for()
    page.fill("#key", SECRET)
    page.press("#key", "Tab")
    page.wait_for_selector("#field-question")
    page.fill("#field-question", "Why?")
    page.fill("#response", "One.")
    page.click("#send")
    page.wait_for_selector("#results article")
    kept = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, location.href]")
    assert kept == [0, 0, "", f"{process.url}/ui"]
    page.reload()
    assert page.input_value("#key") == ""


def test_a_service_that_is_gone_is_told(page: Any, start_service: Callable[..., Any], tiny_store: Path) -> None:
    process = start_service(**settings(tiny_store))
    ask(page, process.url, "One.")
    process.kill()
    page.click("#send")
    page.wait_for_selector("#results .fault")
    assert "did not answer" in page.locator("#results .fault").inner_text()
