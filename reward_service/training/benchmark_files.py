"""Files that reward models are judged by: preferences (as in RewardBench) and marked steps (as in PRM data).

JSONL or Parquet, by the file's name; read row by row.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reward_service.errors import ConfigError
from reward_service.training.data_files import DataFile
from reward_service.training.feedback import refuse

NO_SUBSET = "all"
"""Name of the subset of rows that name none."""

QUESTION = "question"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a row's responses answer.

    Attributes:
        place: File and row, for messages.
        prompt: What `{prompt}` of a template stands for.
        fields: What other names stand for; `question` is the prompt where the row does not say.
        subset: Which part of the benchmark the row belongs to.
    """

    place: str
    prompt: str
    fields: dict[str, str]
    subset: str


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """Responses of which people prefer some.

    Attributes:
        asked: The question.
        chosen: The better ones, at least one.
        rejected: The others, at least one.
        strength: How clearly people preferred, if they said; larger is clearer.
    """

    asked: Asked
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    strength: float | None = None


@dataclass(frozen=True, slots=True)
class StepsRow:
    """A solution in steps.

    Attributes:
        asked: The question.
        steps: S texts.
        labels: S labels: True right, False wrong, None where nobody said.
    """

    asked: Asked
    steps: tuple[str, ...]
    labels: tuple[bool | None, ...]


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore")

    prompt: str
    fields: dict[str, str] = Field(default_factory=dict)
    subset: str | None = None

    def asked(self, place: str) -> Asked:
        return Asked(place, self.prompt, {QUESTION: self.prompt, **self.fields}, self.subset or NO_SUBSET)


class _Preference(_Row):
    chosen: str | list[str]
    rejected: str | list[str]
    strength: float | None = None

    @model_validator(mode="after")
    def _has_both(self) -> "_Preference":
        if not self.chosen or not self.rejected:
            raise ValueError("chosen and rejected must hold a response each")
        return self


class _Steps(_Row):
    """`completions` is TRL's name for the steps; `label` is ProcessBench's: the first wrong step, -1 for none."""

    steps: list[str] = Field(min_length=1)
    labels: list[bool | None] | None = None
    label: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _other_names(cls, row: Any) -> Any:
        if isinstance(row, dict):
            row = dict(row)
            for name, others in (("steps", ("completions",)), ("prompt", ("problem",))):
                for other in others:
                    if name not in row and other in row:
                        row[name] = row[other]
        return row

    @model_validator(mode="after")
    def _is_marked(self) -> "_Steps":
        count = len(self.steps)
        if (self.labels is None) == (self.label is None):
            raise ValueError("needs labels, one a step, or label, the first wrong step (-1 for none)")
        if self.labels is not None and len(self.labels) != count:
            raise ValueError(f"has {len(self.labels)} labels for {count} steps")
        if self.label is not None and not -1 <= self.label < count:
            raise ValueError(f"label {self.label} is no step of {count}")
        if any(not step.strip() for step in self.steps):
            raise ValueError("a step is blank")
        return self

    def marks(self) -> tuple[bool | None, ...]:
        """A step after the first wrong one is neither right nor wrong."""
        if self.labels is not None:
            return tuple(self.labels)
        right = len(self.steps) if self.label == -1 else self.label or 0
        return tuple(True if step < right else False if step == right else None for step in range(len(self.steps)))


@dataclass
class Benchmark:
    """All rows of some files; either kind, never both.

    Attributes:
        preferences: Rows of preference files.
        steps: Rows of step files.
    """

    preferences: list[PreferenceRow] = field(default_factory=list)
    steps: list[StepsRow] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.preferences) + len(self.steps)


def read_preferences(files: Sequence[DataFile]) -> Benchmark:
    """Read `prompt`, `chosen`, `rejected` and, where there are, `subset`, `fields` and `strength`.

    Raises:
        ConfigError: Files that cannot be read or rows that are malformed: every fault with its place.
    """
    return Benchmark(preferences=_read(files, _Preference, _preference_row))


def read_steps(files: Sequence[DataFile]) -> Benchmark:
    """Read `prompt`, `steps`, `labels` (or TRL's and ProcessBench's names) and, where there are, `subset` and `fields`.

    Raises:
        ConfigError: Files that cannot be read or rows that are malformed: every fault with its place.
    """
    return Benchmark(
        steps=_read(files, _Steps, lambda place, row: StepsRow(row.asked(place), tuple(row.steps), row.marks()))
    )


def _preference_row(place: str, row: _Preference) -> PreferenceRow:
    chosen, rejected = ((texts,) if isinstance(texts, str) else tuple(texts) for texts in (row.chosen, row.rejected))
    return PreferenceRow(row.asked(place), chosen, rejected, row.strength)


R = TypeVar("R", bound=_Row)
T = TypeVar("T")


def _read(files: Sequence[DataFile], schema: type[R], make: Callable[[str, R], T]) -> list[T]:
    found: list[T] = []
    faults: list[str] = []
    for file in files:
        try:
            wanted = file.rows(_count(file.path))
            for number, row in enumerate(_rows(file.path)):
                if number not in wanted:
                    continue
                place = f"{file.path}: row {number}"
                try:
                    parsed = schema.model_validate(row)
                except ValidationError as error:
                    faults += [
                        f"{place}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}"
                        for fault in error.errors(include_url=False)
                    ]
                    continue
                found.append(make(place, parsed))
        except (OSError, ValueError) as error:
            faults.append(f"{file.path}: {error}")
    if faults:
        refuse(faults)
    if not found:
        raise ConfigError("--data", ["holds no row"])
    return found


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


def _count(path: Path) -> int:
    if not _is_parquet(path):
        with path.open("rb") as stream:
            return sum(1 for line in stream if line.strip())
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def _rows(path: Path) -> Iterator[Any]:
    if not _is_parquet(path):
        with path.open("rb") as stream:
            for line in stream:
                if line.strip():
                    yield json.loads(line.decode("utf-8"))
        return
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()
