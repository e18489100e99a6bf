"""What is annotated: a question, its passages, and up to four responses of which the first is marked."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from reward_proto.feedback import PREFERENCE_PAIRS

MAX_RESPONSES = max(second for _, second in PREFERENCE_PAIRS)
"""As many as QA-Feedback compares."""

ID_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Task:
    """One question with the responses to it. Two tasks of the same content are the same.

    Attributes:
        question: What was asked.
        passages: Each a title, which may be empty, followed by its sentences.
        responses: One to four; spans are marked on the first.
        gold: A reference answer; may be empty.
    """

    question: str
    passages: tuple[tuple[str, ...], ...]
    responses: tuple[str, ...]
    gold: str = ""

    @classmethod
    def of(cls, question: str, passages: Iterable[Sequence[str]], responses: Sequence[str], gold: str = "") -> Self:
        """Make a task; blank responses at the end stand for ones that do not exist.

        Raises:
            ValueError: There is no response to mark, there are too many, or a passage has no title.
        """
        given = list(responses)
        while given and not given[-1].strip():
            given.pop()
        if not given or not given[0].strip():
            raise ValueError("there is no response to mark: the first one is blank")
        if len(given) > MAX_RESPONSES:
            raise ValueError(f"there are {len(given)} responses; at most {MAX_RESPONSES} are compared")
        kept = tuple(tuple(passage) for passage in passages)
        empty = [number for number, passage in enumerate(kept, start=1) if not passage]
        if empty:
            raise ValueError(f"passage {empty[0]} is empty; its title comes first")
        return cls(question, kept, tuple(given), gold)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        content = json.loads(text)
        return cls.of(content["question"], content["passages"], content["responses"], content["gold"])

    def to_json(self) -> str:
        """The task as one line, always the same for the same task."""
        return json.dumps(self.to_dict(), ensure_ascii=False, sort_keys=True)

    def to_dict(self) -> dict[str, Any]:
        """The task as the page gets it."""
        return {
            "question": self.question,
            "passages": [list(passage) for passage in self.passages],
            "responses": list(self.responses),
            "gold": self.gold,
        }

    @property
    def id(self) -> str:
        """Digest of the content, in hex."""
        return hashlib.sha256(self.to_json().encode("utf-8", "surrogatepass")).hexdigest()[:ID_DIGITS]

    @property
    def pairs(self) -> tuple[int, ...]:
        """Which of QA-Feedback's six pairs are among its responses."""
        count = len(self.responses)
        return tuple(number for number, (_, second) in enumerate(PREFERENCE_PAIRS) if second <= count)
