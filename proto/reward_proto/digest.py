"""A name for what was scored, the same on both sides and in every file that keeps scores."""

import hashlib
import json

from reward_proto.score import ScoreItem

DIGEST_FORMAT = "item-1"
"""Part of every digest. Raised with any change of what a digest covers or how it is written."""


def item_digest(item: ScoreItem) -> str:
    r"""Names the texts of an item: two items with one digest get the same score from one version and runtime.

    SHA-256 of the JSON array `["item-1", prompt, response, fields, segments]`: ASCII only (other characters as
    lower-case `\uXXXX` of UTF-16), no white space, `fields` as `[name, text]` pairs and `segments` as `[granularity,
    [[start, end], ...]]` pairs, both sorted by name. The item's `id` has no part in it.

    Returns:
        64 hexadecimal digits.
    """
    parts = [
        DIGEST_FORMAT,
        item.prompt,
        item.response,
        sorted(item.fields.items()),
        sorted((granularity.value, spans) for granularity, spans in item.segments.items()),
    ]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True, separators=(",", ":")).encode("ascii")).hexdigest()
