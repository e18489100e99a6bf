"""One service with the page for a module's tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.reward_service.web.annotate.window import Running


@pytest.fixture(scope="module")
def running(start_service: Callable[..., Any], tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Running:
    return Running(start_service, tiny_store, tmp_path_factory.mktemp("annotations"))
