"""What is wrong with a settings file, in words."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

READ_PATHS = (("model",), ("policy",), ("value",), ("prompts",), ("data", "train"), ("data", "dev"))
"""Places in the files of all commands that name what is read."""


def missing_paths(raw: dict[str, Any]) -> list[str]:
    """Which of the files and folders that a run reads are not there.

    Args:
        raw: The settings as they stand in the file.
    """
    faults = []
    for keys in READ_PATHS:
        value: Any = raw
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str) and not Path(value).exists():
            faults.append(f"{'.'.join(keys)}: {value} does not exist")
    return faults


def describe(error: ValidationError) -> list[str]:
    """One line for each fault, with its place in the file."""
    faults = error.errors()
    places = [fault["loc"] for fault in faults]
    lines = []
    for fault in faults:
        place = fault["loc"]
        if place and any(len(other) > len(place) and other[: len(place)] == place for other in places):
            continue  # pydantic's consequence of a fault inside, such as a list that lacks its faulty entry
        where = ".".join(str(part) for part in place)
        message = (
            "unknown setting" if fault["type"] == "extra_forbidden" else fault["msg"].removeprefix("Value error, ")
        )
        lines.append(f"{where}: {message}" if where else message)
    return lines
