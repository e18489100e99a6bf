from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture
def make_rig(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Builds rigs of the class `Rig` that the test's module imports; they are closed after the test."""
    made: list[Any] = []

    def make(*arguments: Any, **options: int) -> Any:
        made.append(request.module.Rig(*arguments, **options))
        return made[-1]

    yield make
    for rig in made:
        rig.close()
