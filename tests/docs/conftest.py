import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"```python\n(.*?)```\n(?:```text\n(.*?)```\n)?", re.DOTALL)


@pytest.fixture
def run_examples() -> Callable[[str], None]:
    """Runs a page's Python blocks in order and compares what each prints with the text block after it."""

    def run(page: str) -> None:
        text = (DOCS / page).read_text(encoding="utf-8")
        examples = BLOCK.findall(text)
        assert examples
        assert len(examples) == text.count("```python")
        names: dict[str, object] = {}
        for code, expected in examples:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(code, page, "exec"), names)
            assert printed.getvalue() == expected, code

    return run
