"""Feedback files and slices of them: `dev.json`, `dev.json[:200]`, `dev.json[200:]`, `dev.json[-50:]`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator

_SLICE = re.compile(r"(?P<path>.+)\[(?P<start>-?\d+)?:(?P<stop>-?\d+)?\]")


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of feedback, or some rows of it.

    Attributes:
        path: The file.
        start: First row, from 0; negative ones count from the end. The first one when absent.
        stop: One past the last row; the end when absent.

    Source: the notation is that of Hugging Face's `datasets`, in whole rows.
    """

    path: Path
    start: int | None = None
    stop: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `PATH` or `PATH[START:STOP]`.

        Raises:
            ValueError: It ends in brackets that hold no range of rows.
        """
        if not text.endswith("]"):
            return cls(Path(text))
        match = _SLICE.fullmatch(text)
        if match is None:
            raise ValueError(f"{text}: a slice is [START:STOP], in rows")
        start, stop = (None if match[name] is None else int(match[name]) for name in ("start", "stop"))
        return cls(Path(match["path"]), start, stop)

    def rows(self, count: int) -> range:
        """Numbers of the rows that are meant.

        Args:
            count: Rows of the whole file.

        Raises:
            ValueError: A bound is past the file's rows, or no row is left.
        """
        bounds = [bound for bound in (self.start, self.stop) if bound is not None]
        if any(not -count <= bound <= count for bound in bounds):
            raise ValueError(f"the slice {self.slice} is past the file's {count} rows")
        rows = range(count)[self.start : self.stop]
        if bounds and not rows:
            raise ValueError(f"the slice {self.slice} holds none of the file's {count} rows")
        return rows

    @property
    def slice(self) -> str:
        """`[START:STOP]`; empty for the whole file."""
        if self.start is None and self.stop is None:
            return ""
        start, stop = ("" if bound is None else bound for bound in (self.start, self.stop))
        return f"[{start}:{stop}]"

    def __str__(self) -> str:
        return f"{self.path}{self.slice}"


def _parse(value: Any) -> Any:
    return DataFile.parse(str(value)) if isinstance(value, str | Path) else value


DataFileField = Annotated[DataFile, BeforeValidator(_parse)]
"""A `DataFile` in settings, written as a string."""
