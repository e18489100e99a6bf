"""What a request spent its time on, for whoever wants to see it: a trace, for example."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the time that a request took.

    Attributes:
        name: `tokenize`, `queue` or `inference`.
        model: Whose.
        begin_s: On the monotonic clock.
        end_s: On the same.
    """

    name: str
    model: str
    begin_s: float
    end_s: float


recorded_stages: ContextVar[list[Stage] | None] = ContextVar("recorded_stages", default=None)
"""The list that the stages of the request at hand are added to; None where nobody wants them."""
