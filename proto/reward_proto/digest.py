"""Digests by which both sides name texts that they may not keep."""

import hashlib
import json
from collections.abc import Mapping, Sequence

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def text_digest(text: str) -> str:
    """SHA-256 of a text in UTF-8, 64 hexadecimal digits. `printf %s TEXT | sha256sum` gives the same."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def item_digest(
    prompt: str,
    response: str,
    fields: Mapping[str, str] | None = None,
    segments: Mapping[str, Sequence[Sequence[int]]] | None = None,
) -> str:
    """SHA-256 of all that a score can depend on besides the model: the item without its id.

    Args:
        prompt: See `score.ScoreItem`.
        response: The same.
        fields: The same.
        segments: The same: `[start, end]` by granularity.

    Returns:
        64 hexadecimal digits, of the item's JSON in UTF-8 with sorted keys, no white space and no escapes but those
        that JSON demands; all four keys are there.
    """
    told = {
        "prompt": prompt,
        "response": response,
        "fields": dict(fields or {}),
        "segments": {str(name): [list(span) for span in spans] for name, spans in (segments or {}).items()},
    }
    return text_digest(_CANONICAL.encode(told))
