"""What an annotator does in the page, in headless Chromium against a real service, and what is stored of it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reward_service.annotation.annotation import Annotation
from reward_service.annotation.store import AnnotationStore
from reward_service.annotation.task import Task
from tests.reward_service.annotation.conftest import PASSAGES, RESPONSE

HOSTILE = "</p><script>alert(1)</script><img src=x onerror=alert(2)> \x07 \"'& שלום 👩\u200d🚀"
TASKS = [
    Task.of("What day? 🗓", PASSAGES, [RESPONSE, "Another.", "A third.", "A fourth."]),
    Task.of(HOSTILE, [(HOSTILE, HOSTILE)], [HOSTILE, HOSTILE + "2"]),
    Task.of("Alone?", [], ["One response."]),
]


class Running:
    """A service with the page, and the file of its annotations."""

    def __init__(self, start: Callable[..., Any], models: Path, folder: Path, **more: Any) -> None:
        self.path = folder / "annotations.db"
        store = AnnotationStore(self.path)
        store.add_tasks(TASKS)
        store.close()
        served = [{"name": "completeness", "runtime": "onnxruntime"}]
        self._settings = {"store": str(models), "models": served, "annotate": {"path": str(self.path)}, **more}
        self._start = start
        self.process = start(**self._settings)

    def restart(self) -> None:
        """End the service, and start it anew on the same port."""
        port = int(self.process.url.rpartition(":")[2])
        assert self.process.end() == 0
        self.process = self._start(**{**self._settings, "port": port})

    def kept(self, who: str, number: int = 0) -> tuple[Annotation, bool]:
        """What is stored of a person's annotation, and whether it is done."""
        store = AnnotationStore(self.path)
        found = store.find(TASKS[number].id, who)
        store.close()
        assert found is not None
        return found.annotation, found.done


def open_page(page: Any, running: Running, who: str, number: int = 0) -> None:
    page.goto("about:blank")  # Another fragment of the same page would not load it anew.
    page.goto(f"{running.process.url}/annotate#annotator={who}&task={TASKS[number].id}")
    page.locator("#place", has_text=f"{number + 1} of 3").wait_for()


def wait_saved(page: Any) -> None:
    page.locator("#saved", has_text=re.compile("^saved$")).wait_for()


def marked(page: Any) -> list[str]:
    """The texts that are shown as marked, with their types."""
    return list(
        page.locator("#response .mark").evaluate_all("marks => marks.map(mark => `${mark.title}|${mark.textContent}`)")
    )


def select(page: Any, start: int, end: int) -> None:
    """Select by UTF-16 units, as a mouse would, wherever marks cut the text."""
    page.evaluate(
        """async ([start, end]) => {
            const { selectUnits } = await import('/annotate/spans.js');
            document.getElementById('response').focus();
            selectUnits(document.getElementById('response'), { start, end });
        }""",
        [start, end],
    )


def drag(page: Any, start: int, end: int) -> None:
    """Select with the mouse, from one UTF-16 unit to another."""
    corners = page.evaluate(
        """([start, end]) => {
            const text = document.getElementById('response').firstChild;
            return [start, end].map((unit) => {
                const range = document.createRange();
                range.setStart(text, unit);
                const box = range.getBoundingClientRect();
                return [box.left, box.top + box.height / 2];
            });
        }""",
        [start, end],
    )
    page.mouse.move(*corners[0])
    page.mouse.down()
    page.mouse.move(*corners[1], steps=5)
    page.mouse.up()
