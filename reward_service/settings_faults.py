"""What is wrong with a settings file, in words."""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from reward_service.text_rewards.settings import FUNCTION_PATTERN, KEY_ENV_PATTERN, URL_PATTERN

REFERENCE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}(@[A-Za-z0-9_.-]{1,64})?$"
"""`name`, `name@alias` or `name@version`."""

DEVICE_PATTERN = r"^(cpu|cuda(:\d+)?)$"

MEANT = {
    REFERENCE_PATTERN: "name, name@alias or name@version",
    DEVICE_PATTERN: "cpu, cuda or cuda:N",
    URL_PATTERN: "a whole address, such as http://HOST:PORT",
    KEY_ENV_PATTERN: "the name of an environment variable",
    FUNCTION_PATTERN: "module:function",
}
"""Patterns in words, for those who broke them."""

SOURCE_TAG = "source="
"""Begins what pydantic names the kinds of entries by, so that a fault's place can tell it from a setting."""

UNKNOWN_SOURCE = "unknown_source"
"""What pydantic calls the fault of an entry of no kind."""


def describe(error: ValidationError) -> list[str]:
    """One line for each fault, with its place in the file."""
    return [f"{_place(fault)}{_told(fault)}" for fault in error.errors(include_url=False)]


def _told(fault: ErrorDetails) -> str:
    if fault["type"] == "extra_forbidden":
        return "unknown setting"
    if fault["type"] == "string_pattern_mismatch" and (meant := MEANT.get(fault["ctx"]["pattern"])):
        return f"must be {meant}"  # What was given may be a secret.
    return fault["msg"].removeprefix("Value error, ")


def _place(fault: ErrorDetails) -> str:
    """`("models", 0, "runtime")` as `models[0].runtime: `; nothing for the file as a whole."""
    location = [*fault["loc"], *(["source"] if fault["type"] == UNKNOWN_SOURCE else [])]
    shown = [part for part in location if not str(part).startswith(SOURCE_TAG)]
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in shown)
    return f"{text.lstrip('.')}: " if text else ""
