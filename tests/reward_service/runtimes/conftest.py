"""A store of its own, whose exports a test may change."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from reward_service.registry.store import Published, Store


@pytest.fixture
def own_store(tiny_store: Path, tmp_path: Path) -> Path:
    """The tiny store without remembered choices, copied."""
    root = tmp_path / "own"
    shutil.copytree(tiny_store, root, ignore=shutil.ignore_patterns("choices.json"))
    return root


@pytest.fixture
def resolve(own_store: Path) -> Callable[[str], Published]:
    """A version of the store, by name."""
    return Store(own_store).resolve
