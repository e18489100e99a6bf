"""Texts to compare two runtimes on: those published with a model, or built-in ones."""

import json
from collections.abc import Sequence
from pathlib import Path

from reward_service.core.encode import InputEncoder
from reward_service.core.template import PROMPT_FIELD, template_fields
from reward_service.domain import Encoded, TextItem
from reward_service.errors import TooLongError
from reward_service.registry.manifest import Manifest
from reward_service.registry.store import Published
from reward_service.runtimes.gate import encode_item

PARITY_FILE = "parity.jsonl"
"""Held-out texts that are published with a trained model."""

_SENTENCES = (
    "The bridge was opened in 1932, after eight years of work, and it still carries eight lanes of traffic.",
    'Dr. Smith said that it\'s "the finest of its kind"; few would disagree!',
    "Yes.",
    "Its main span is 503 metres long (1,650 ft), e.g. longer than five football pitches, and café owners love it 🎉.",
    "Who built it? A firm from the north did, with steel that came by ship,   and local granite.",
)


def sample_items(published: Published) -> list[TextItem]:
    """The texts published with a model; built-in ones in every field of its template where there are none."""
    path = published.path / PARITY_FILE
    if path.exists():
        return read_text_items(path)
    fields = template_fields(published.manifest.template) - {PROMPT_FIELD}
    items = []
    for first in range(len(_SENTENCES)):
        for count in (1, 3, 8):
            response = " ".join(_SENTENCES[(first + i) % len(_SENTENCES)] for i in range(count))
            filler = _SENTENCES[first - 1]
            items.append(TextItem(filler, response, dict.fromkeys(fields, filler)))
    return items


def fitting_items(
    items: Sequence[TextItem], manifest: Manifest, encoder: InputEncoder
) -> tuple[list[TextItem], list[Encoded]]:
    """The items that fit the model's length and have something to score, and their inputs."""
    kept: list[TextItem] = []
    encoded: list[Encoded] = []
    for item in items:
        try:
            found = encode_item(item, manifest, encoder)
        except TooLongError:
            continue
        if any(read.spans for read in found.reads):
            kept.append(item)
            encoded.append(found)
    return kept, encoded


def write_text_items(path: Path, items: Sequence[TextItem]) -> None:
    """Write one JSON object a line: prompt, response, fields."""
    lines = (
        json.dumps({"prompt": item.prompt, "response": item.response, "fields": item.fields}, ensure_ascii=False)
        for item in items
    )
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def read_text_items(path: Path) -> list[TextItem]:
    """Read what `write_text_items` wrote."""
    with path.open(encoding="utf-8") as stream:
        return [TextItem(**json.loads(line)) for line in stream]
