"""The texts that a load is made of: the responses of a feedback file, or of any JSONL file that has some."""

import json
from collections.abc import Iterator, Sequence

from pydantic import BaseModel, Field, ValidationError, model_validator

from reward_proto.score import ScoreItem
from reward_service.errors import ConfigError
from reward_service.training.data_files import DataFile
from reward_service.training.feedback import FeedbackFormat, refuse
from reward_service.training.qa_feedback import read_qa_feedback


class _Line(BaseModel):
    """A line of JSONL; keys that are of no use here are passed over.

    Attributes:
        prompt: What the policy was given.
        fields: Named inputs of templates.
        response: The text, or else the next two.
        chosen: The better of two texts.
        rejected: The other one.
    """

    prompt: str = ""
    fields: dict[str, str] = Field(default_factory=dict)
    response: str | None = None
    chosen: str | None = None
    rejected: str | None = None

    @model_validator(mode="after")
    def _has_a_text(self) -> "_Line":
        if not self.texts:
            raise ValueError("needs `response`, or `chosen` and `rejected`")
        return self

    @property
    def texts(self) -> list[str]:
        """Every response of the line."""
        return [text for text in (self.response, self.chosen, self.rejected) if text is not None]


def read_items(data_format: FeedbackFormat, files: Sequence[DataFile]) -> list[ScoreItem]:
    """Read every response of some files.

    Args:
        data_format: QA-Feedback's own JSON, or JSONL with `response` (or `chosen` and `rejected`), `prompt`, `fields`.
        files: Read in this order.

    Returns:
        At least one item.

    Raises:
        ConfigError: A file cannot be read, has faults (all of them are told), or there is no response.
    """
    if data_format == "qa_feedback":
        texts = read_qa_feedback(files).texts()
        items = [ScoreItem(prompt=text.prompt, response=text.response, fields=text.fields) for text in texts]
    else:
        items = _read_jsonl(files)
    if not items:
        raise ConfigError("--data", ["there is no response in it"])
    return items


def _read_jsonl(files: Sequence[DataFile]) -> list[ScoreItem]:
    items: list[ScoreItem] = []
    faults: list[str] = []
    for file in files:
        try:
            lines = list(_lines(file))
            wanted = file.rows(len(lines))
        except (OSError, ValueError) as error:
            faults.append(f"{file.path}: {error}")
            continue
        for row in wanted:
            number, content = lines[row]
            try:
                line = _Line.model_validate(json.loads(content))
            except ValidationError as error:
                faults.extend(f"{file.path}:{number}: {fault['msg']}" for fault in error.errors(include_url=False))
            except ValueError as error:
                faults.append(f"{file.path}:{number}: not JSON: {error}")
            else:
                items.extend(ScoreItem(prompt=line.prompt, response=text, fields=line.fields) for text in line.texts)
    if faults:
        refuse(faults)
    return items


def _lines(file: DataFile) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1."""
    with file.path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield number, line
