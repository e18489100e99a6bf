"""The report in headless Chromium, opened from disk with no network."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rl_client.offline.answers import choose_answers
from rl_client.offline.comparison import compare_systems
from rl_client.offline.figures import make_figures, summarise
from rl_client.offline.overoptimisation import read_courses
from rl_client.offline.page import render_page, visible
from rl_client.offline.systems import load_system

EVIL = "\"'><script>window.pwned=1</script><img src=x onerror=window.pwned=1>{{7*7}}</style></title>"
RESPONSES = [f"{EVIL} one.", "\x00\x1b[31m two\u202e.", "Plain three.", "Zeile\nvier. 👍🏽"]


def write(path: Path, shift: float) -> Path:
    with path.open("w") as file:
        for n, response in enumerate(RESPONSES):
            segments = [{"start": 0, "end": len(response), "score": 0.1 + 0.2 * n + shift * n, "label": EVIL}]
            score = {"model": EVIL, "version": EVIL, "runtime": "r", "granularity": "sentence", "segments": segments}
            score["sequence_score"] = segments[0]["score"]
            line = {"id": f"q{n}{EVIL}", "prompt": EVIL, "response": response, "fields": {EVIL: EVIL}, "kind": EVIL}
            file.write(
                json.dumps(line | {"reference": EVIL, "scores": {EVIL: score, "other": score | {"model": "other"}}})
                + "\n"
            )
    return path


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    systems = [
        load_system(name, write(folder / f"{place}.jsonl", 0.1 * place), slices=["kind"])
        for place, name in enumerate((EVIL, "b"))
    ]
    tables = [make_figures(system) for system in systems]
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "kl": 0.5, f"reward/{EVIL}": 1.0}) + "\n")
    return render_page(
        EVIL,
        {one.name: summarise(one, table, seed=0) for one, table in zip(systems, tables, strict=True)},
        choose_answers(systems, tables, limit=9),
        pairs=compare_systems(systems, tables, slices=["kind"], seed=0),
        slicings=("length", "longer", "kind"),
        front=[EVIL],
        left_out={EVIL: 3, "b": 0},
        runs={EVIL: read_courses(folder)},
    )


class Tags(HTMLParser):
    """Counts elements and collects attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.found.append((tag, dict(attrs)))


def test_the_only_elements_are_the_pages_own(html: str) -> None:
    found = Tags(html).found
    assert sum(tag == "script" for tag, _ in found) == 1
    assert not [attrs for _, attrs in found for name in attrs if name.startswith("on") or name in ("style", "href")]
    sources = [attrs["src"] or "" for _, attrs in found if "src" in attrs]
    assert sources
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert "{{7*7}}" in html
    assert "49" not in html.split("<body>")[0]


def test_control_characters_can_be_seen() -> None:
    assert visible("a\x00\x1b\x7f\x85\u202e\n\tb") == "a␀␛␡\\x85\\u202e\n\tb"


def test_one_system_is_shown_without_comparisons(tmp_path: Path) -> None:
    system = load_system("one", write(tmp_path / "a.jsonl", 0.0))
    table = make_figures(system)
    html = render_page("t", {"one": summarise(system, table, seed=0)}, choose_answers([system], [table], limit=2))
    assert "2 of 4 prompts" in html
    assert "the lowest score" in html
    assert "against" not in html.split("<h2>Answers")[0].replace("Reward against KL", "")


def test_from_disk_it_shows_texts_as_they_are_and_sorts(html: str, browser: Any, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(html)
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: request.url.startswith(("data:", "file:")) or faults.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    assert page.title() == EVIL
    assert page.evaluate("window.pwned") is None
    images = "Array.from(document.images).every(one => one.complete && one.naturalWidth > 0)"
    page.wait_for_function(images)
    sections = page.locator("#answers > section")
    ids = "Array.from(document.querySelectorAll('#answers h3')).map(one => one.firstChild.data.trim().slice(0, 2))"
    assert page.evaluate(ids) == ["q3", "q2", "q1", "q0"]
    page.select_option("#order", "file")
    assert page.evaluate(ids) == ["q0", "q1", "q2", "q3"]
    page.select_option("#order", "lead")
    assert page.evaluate(ids) == ["q0", "q1", "q2", "q3"]
    page.select_option("#order", "behind")
    assert page.evaluate(ids) == ["q3", "q2", "q1", "q0"]
    shown = sections.nth(3).locator(".m0 .s:visible").first
    assert shown.inner_text() == RESPONSES[0]
    assert shown.get_attribute("title") == f"0.1, {EVIL}"
    assert sections.nth(2).locator(".m0 .s:visible").first.inner_text() == "␀␛[31m two\\u202e."
    assert sections.nth(0).locator(".m1 .s:visible").count() == 0
    page.select_option("#model", "1")
    assert sections.nth(0).locator(".m1 .s:visible").count() == 2
    colours = [
        shown.evaluate("one => getComputedStyle(one).backgroundColor")
        for shown in sections.nth(0).locator(".m1 .s:visible").all()
    ]
    assert len(set(colours)) == 2
    assert faults == []
    context.close()
