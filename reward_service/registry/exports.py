"""What lies in VERSION.exports: derived forms of a version, each with the record of the comparison that let it in."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reward_service.domain import TextItem
from reward_service.errors import StoreError
from reward_service.registry import files as model_files

EXPORT_FILE = "export.json"
ONNX_FILE = "model.onnx"
REFERENCE_FILE = "reference.jsonl"


class HeadParity(BaseModel):
    """How far a runtime is from torch in fp32, for one head.

    Attributes:
        max_abs_diff: Largest difference of a score, run in batches or alone.
        mean_abs_diff: Mean difference in batches.
        rank_correlation: Spearman's of the scores; None where the scores are all one number.
        label_flips: Segments whose winning class differs.
        label_flip_share: Of all segments.
        batch_drift: Largest difference of a score in a padded batch from the same score alone, on this runtime.
        n_scores: Scores compared: of segments, or of whole responses.
        unit: What the bounds are multiples of: 1 for a probability, a regressor's standard deviation below fp32.
        max_allowed: What `max_abs_diff` may be at most.
        mean_allowed: What `mean_abs_diff` may be at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_abs_diff: float
    mean_abs_diff: float
    rank_correlation: float | None
    label_flips: int
    label_flip_share: float
    batch_drift: float
    n_scores: int
    unit: float
    max_allowed: float
    mean_allowed: float

    @property
    def fault(self) -> str | None:
        """Which bound is passed; None where both hold. NaN passes neither."""
        if not self.max_abs_diff <= self.max_allowed:
            return f"a score differs by {self.max_abs_diff:.3g}, {self.max_allowed:.3g} is allowed"
        if not self.mean_abs_diff <= self.mean_allowed:
            return f"scores differ by {self.mean_abs_diff:.3g} in the mean, {self.mean_allowed:.3g} is allowed"
        return None


class Environment(BaseModel):
    """What a runtime's numbers depend on besides the model.

    Attributes:
        processor: The CPU, or the GPU, and those of its instructions that runtimes choose kernels by.
        libraries: Versions of the runtime's packages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    processor: str
    libraries: dict[str, str]


class ExportRecord(BaseModel):
    """An export.json.

    Attributes:
        version: Of the model.
        runtime: Such as `openvino-bf16`.
        reads: The export whose ONNX file is read, its own or another's; empty for torch.
        files: SHA-256 of each file beside the record.
        parity: Figures of the comparison by head; the model's own name where it is its only head.
        n_texts: Texts compared.
        made_on: Where the comparison ran.
        fused: Operators that stand for several of the traced graph's, and how many of each the file holds.
        torch: Version of the torch that is compared with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    runtime: str
    reads: str
    files: dict[str, str] = Field(default_factory=dict)
    parity: dict[str, HeadParity]
    n_texts: int
    made_on: Environment
    fused: dict[str, int] = Field(default_factory=dict)
    torch: str


class ReferenceText(BaseModel):
    """A text and what torch in fp32 says of it.

    Attributes:
        prompt: As in `TextItem`.
        response: As in `TextItem`.
        fields: As in `TextItem`.
        scores: For each head one number a segment, or the scalar of a response without segments.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    response: str
    fields: dict[str, str]
    scores: tuple[tuple[float, ...], ...]

    @property
    def item(self) -> TextItem:
        """The text alone."""
        return TextItem(self.prompt, self.response, self.fields)


def read_record(directory: Path, version: str) -> ExportRecord:
    """Read an export's record and verify the files beside it.

    Raises:
        StoreError: It is no record of an export of this version; a file was changed, added or removed.
    """
    path = directory / EXPORT_FILE
    content = model_files.read_json_object(path)
    if content.get("version") != version:
        raise StoreError(f"{path}: is not the report of an export of {version}")
    try:
        record = ExportRecord.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise StoreError(
            f"{path}: is not the report of an export that this release made ({place}: {fault['msg']}); export again"
        ) from error
    model_files.verify_files(directory, {**record.files, EXPORT_FILE: model_files.sha256_of(path)})
    return record


def write_reference(path: Path, texts: Sequence[ReferenceText]) -> None:
    """Write one JSON object a line."""
    path.write_text("".join(text.model_dump_json() + "\n" for text in texts), encoding="utf-8")


def read_reference(path: Path) -> list[ReferenceText]:
    """Read what `write_reference` wrote.

    Raises:
        StoreError: The file is missing or malformed.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            return [ReferenceText.model_validate_json(line) for line in stream]
    except (OSError, ValidationError) as error:
        raise StoreError(f"{path}: {error}") from error


def write_export(target: Path, record: ExportRecord, files: Path) -> ExportRecord:
    """Put an export in its place, in place of an earlier one.

    Args:
        target: Its directory; the parent is made if need be.
        record: Without the digests of its files, which are added.
        files: A directory with the derived files.

    Returns:
        The record as it was written.
    """
    target.parent.mkdir(exist_ok=True)
    with model_files.staging(target.parent) as staged:
        for source in model_files.check_directory(files):
            model_files.copy_durably(source, staged / source.name)
        digests = {path.name: model_files.sha256_of(path) for path in sorted(staged.iterdir())}
        full = record.model_copy(update={"files": digests})
        model_files.write_durably(staged / EXPORT_FILE, (full.model_dump_json(indent=2) + "\n").encode())
        with model_files.locked(target.parent):
            if target.exists():
                shutil.rmtree(target)
            model_files.move_into_place(staged, target)
    return full


def exports_in(directory: Path) -> list[str]:
    """Names of the exports in a version's directory of exports, whether they are sound or not."""
    found = directory.iterdir() if directory.is_dir() else iter(())
    return sorted(path.name for path in found if path.is_dir() and not path.name.startswith("."))


def summarize(directory: Path, version: str) -> dict[str, dict[str, object]]:
    """For each export its figures; an unreadable record tells its fault in their place. Files are not verified."""
    told: dict[str, dict[str, object]] = {}
    for name in exports_in(directory):
        try:
            content = model_files.read_json_object(directory / name / EXPORT_FILE)
            record = ExportRecord.model_validate(content)
            fault = None if record.version == version else f"made from {record.version}"
        except (StoreError, ValidationError) as error:
            told[name] = {"fault": str(error)}
            continue
        told[name] = {"fault": fault} if fault else json.loads(record.model_dump_json(exclude={"files", "version"}))
    return told
