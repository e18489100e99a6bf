from collections.abc import Callable
from pathlib import Path
from typing import Any

from reward_service.cache.codec import encode_scores
from reward_service.domain import ItemScore

KEY = b"k" * 32
SCORES = (ItemScore((), 0.25),)
FOUND = (ItemScore((), 0.25, cached=True),)


def test_what_is_kept_is_found_in_memory(make_rig: Callable[..., Any]) -> None:
    cache = make_rig().cache
    assert cache.find(KEY, 1) is None
    cache.keep(KEY, encode_scores(SCORES))
    assert cache.find(KEY, 1) == FOUND
    assert not cache.has_disk


def test_without_a_disk_nothing_is_there(make_rig: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    assert run(make_rig().cache.find_on_disk([KEY], 1)) == {}


def test_what_was_found_on_disk_is_in_memory_from_then_on(
    make_rig: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path
) -> None:
    first = make_rig(path=tmp_path / "c.db")
    first.cache.keep(KEY, encode_scores(SCORES))
    first.cache.close(20.0)
    cache = make_rig(path=tmp_path / "c.db").cache
    assert cache.find(KEY, 1) is None
    assert run(cache.find_on_disk([KEY, b"other" * 6], 1)) == {KEY: FOUND}
    assert cache.find(KEY, 1) == FOUND


def test_scores_in_memory_are_marked_as_used_on_disk(make_rig: Callable[..., Any], tmp_path: Path) -> None:
    rig = make_rig(path=tmp_path / "c.db")
    touched: list[bytes] = []
    rig.disk.touch = touched.append
    rig.cache.keep(KEY, encode_scores(SCORES))
    rig.cache.find(KEY, 1)
    assert touched == [KEY]
