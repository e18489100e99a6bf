"""What stands before a response in a model's input: literal text with `{field}` for each named input."""

import re
from string import Formatter

PROMPT_FIELD = "prompt"
"""The template field that every item has."""

_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_template(template: str) -> tuple[tuple[str, str | None], ...]:
    """Split a template into pairs of literal text and the field that follows it (None at the end).

    Raises:
        ValueError: A brace is unbalanced, or a field is not a bare name (conversions and formats are refused).
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"template {template!r}: {error}") from error
    for _, name, form, conversion in parts:
        if name is not None and (not _FIELD_NAME.fullmatch(name) or form or conversion):
            raise ValueError(f"template {template!r}: only bare {{field}} names are allowed, got {{{name}}}")
    return tuple((literal, name) for literal, name, _, _ in parts)


def template_fields(template: str) -> frozenset[str]:
    """Names of the inputs that a template reads; `prompt` among them if it does.

    Raises:
        ValueError: See `parse_template`.
    """
    return frozenset(name for _, name in parse_template(template) if name is not None)
