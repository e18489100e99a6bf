from collections.abc import Iterator
from typing import Any

import pytest
import sentencex

from reward_service.core.segment import SEGMENTER_VERSION
from reward_service.core.segmenter_version import AS_TESTED, probe_digest, segmenter_version


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Versions are found once a process."""
    segmenter_version.cache_clear()
    yield
    segmenter_version.cache_clear()


def test_the_installed_segmenter_is_the_tested_one() -> None:
    """Where this fails, sentencex moved spans: raise SEGMENTER_VERSION and write the new digests down."""
    assert {language: probe_digest(language) for language in AS_TESTED} == AS_TESTED
    assert {segmenter_version(language) for language in AS_TESTED} == {SEGMENTER_VERSION}


@pytest.mark.parametrize("language", ["en-GB", "xx"])
def test_what_is_divided_as_english_is_named_as_english(language: str) -> None:
    assert segmenter_version(language) == SEGMENTER_VERSION


def test_the_probe_tells_languages_apart() -> None:
    assert len(set(AS_TESTED.values())) > 10
    assert segmenter_version("hy") not in {SEGMENTER_VERSION, segmenter_version("am")}


def test_a_segmenter_that_moves_one_boundary_has_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    get = sentencex.get_sentence_boundaries

    def without_one(language: str, text: str) -> list[dict[str, Any]]:
        """As if one more abbreviation were known in German, and nothing else had changed."""
        found = get(language, text)
        if language != "de":
            return found
        index = len(found) // 2
        joined = {**found[index - 1], "end_index": found[index]["end_index"]}
        return [*found[: index - 1], joined, *found[index + 1 :]]

    monkeypatch.setattr(sentencex, "get_sentence_boundaries", without_one)
    changed = segmenter_version("de")
    assert changed.startswith(f"{SEGMENTER_VERSION}-")
    assert len(changed) == len(SEGMENTER_VERSION) + 9
    assert segmenter_version("en") == SEGMENTER_VERSION
