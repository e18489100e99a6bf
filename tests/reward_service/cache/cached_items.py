"""Items to score, and what their results say of having been kept."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from reward_service.core.source import SourceOutcome
from reward_service.domain import ItemScore, TextItem

Run = Callable[[Any], Any]
Make = Callable[..., Any]
A, B, C = (TextItem("p", text, {"q": "w"}) for text in ("Aa.", "Bb.", "Cc."))


def marked(results: Any, cached: bool) -> Any:
    return tuple(replace(one, cached=cached) if isinstance(one, ItemScore) else one for one in results)


def flags(outcome: SourceOutcome) -> list[bool]:
    return [results[0].cached for results in outcome.results if isinstance(results[0], ItemScore)]
