"""What a score depends on -> the 32 bytes it is kept under.

The encoding has no two readings: each text stands after its length, each list after the number of its entries.
"""

import hashlib
import json
import struct
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from reward_service.core.template import PROMPT_FIELD
from reward_service.domain import ModelCard, TextItem

FORMAT = "scores-1"
"""Part of every key. Raise it with any change of code that changes a score or how it is written down."""

KEY_BYTES = 32

_ABSENT = struct.pack("<q", -1)


class KeyMaker:
    """Makes the keys of one computation.

    Args:
        cards: The models whose scores come from it. Their digests stand for weights, tokenizer, template, labels and
            segmenter.
        computation: What else changes its numbers, as JSON: the processor, versions of libraries, an exported file.
        reads: Names of the inputs that it reads beside the response: `prompt` and names of `fields`. All if None.
    """

    def __init__(
        self,
        cards: Sequence[ModelCard],
        computation: Mapping[str, Any] | None = None,
        reads: Collection[str] | None = None,
    ) -> None:
        told = {
            "format": FORMAT,
            "models": [_identity(card) for card in cards],
            "computation": dict(computation or {}),
            "reads": None if reads is None else sorted(set(reads)),
        }
        self._base = hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=KEY_BYTES)
        self._granularities = sorted({card.granularity for card in cards})
        self._reads = None if reads is None else frozenset(reads) - {PROMPT_FIELD}
        self._reads_prompt = reads is None or PROMPT_FIELD in reads

    def make(self, item: TextItem) -> bytes:
        """The key of an item's scores. Lone surrogates are as good as any other character here."""
        names = [name for name in item.fields if self._reads is None or name in self._reads]
        parts = [struct.pack("<qq", self._reads_prompt, len(names)), *_text(item.response)]
        if self._reads_prompt:
            parts += _text(item.prompt)
        for name in sorted(names):
            parts += _text(name)
            parts += _text(item.fields[name])
        for granularity in self._granularities:
            spans = item.segments.get(granularity)
            if spans is None:
                parts.append(_ABSENT)
                continue
            edges = [edge for span in spans for edge in (span.start, span.end)]
            parts.append(struct.pack(f"<{1 + len(edges)}q", len(spans), *edges))
        digest = self._base.copy()
        digest.update(b"".join(parts))
        return digest.digest()


def _text(text: str) -> tuple[bytes, bytes]:
    encoded = text.encode("utf-8", "surrogatepass")
    return struct.pack("<q", len(encoded)), encoded


def _identity(card: ModelCard) -> list[Any]:
    head = card.head
    meaning = [head.kind, list(head.labels), head.ok_label, head.first_column]
    return [card.name, card.digest, card.runtime, card.granularity, card.language, card.max_tokens, meaning]
