"""Positions in a text: in Unicode code points, as everywhere here, and in UTF-16 units, as in JavaScript. Pure."""

from enum import StrEnum

_UNIT_BYTES = 2


class Offsets(StrEnum):
    """What a program's positions count."""

    CODE_POINTS = "code_points"
    UTF16 = "utf16"


def to_utf16(text: str, point: int) -> int:
    """The UTF-16 unit at which a code point begins.

    Args:
        text: The text.
        point: Position in code points, at most the text's length.
    """
    return len(text[:point].encode("utf-16-le", "surrogatepass")) // _UNIT_BYTES


def from_utf16(text: str, unit: int) -> int:
    """The code point that begins at a UTF-16 unit.

    Raises:
        ValueError: It is past the text's end, or inside a code point of two units.
    """
    encoded = text.encode("utf-16-le", "surrogatepass")
    if not 0 <= unit * _UNIT_BYTES <= len(encoded):
        raise ValueError(f"position {unit} is outside the text ({len(encoded) // _UNIT_BYTES} UTF-16 units)")
    try:
        return len(encoded[: unit * _UNIT_BYTES].decode("utf-16-le"))
    except UnicodeDecodeError as error:
        raise ValueError(f"position {unit} is inside a character of two UTF-16 units") from error


def read_offsets(text: str, start: int, end: int, counted: Offsets) -> tuple[int, int]:
    """A span of another program in code points.

    Raises:
        ValueError: It is no span of the text, counted so.
    """
    if counted is Offsets.UTF16:
        start, end = from_utf16(text, start), from_utf16(text, end)
    if not 0 <= start < end <= len(text):
        raise ValueError(f"span [{start}, {end}) is outside the text ({len(text)} characters)")
    return start, end


def write_offsets(text: str, start: int, end: int, counted: Offsets) -> tuple[int, int]:
    """A span as another program counts it."""
    return (to_utf16(text, start), to_utf16(text, end)) if counted is Offsets.UTF16 else (start, end)
