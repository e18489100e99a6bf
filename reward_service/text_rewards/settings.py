"""Settings of the rewards that are not encoders: the `models` entries of the service's file whose `source` says so."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from reward_proto.score import Granularity
from reward_service.section import Section

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
KEY_ENV_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
URL_PATTERN = r"^https?://[^\s?#]+$"
FUNCTION_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"

DEFAULT_INSTRUCTIONS = (
    "You check a response to a prompt, segment by segment, as a careful human annotator would. Read the prompt and "
    "any further fields, such as passages that the response should rest on. Then give each segment of the response "
    "exactly one of the labels: the one whose description fits it best in the context of the whole response. Judge a "
    "segment by what it says, not by its style, and do not punish a segment for a fault of another."
)


class TextSettings(Section):
    """What every reward that is not an encoder has.

    Attributes:
        name: What requests call it.
        language: ISO 639 code for the sentence segmenter, and for a remote service that asks for it.
        concurrency: Calls that may be under way at a time.
        cache: Whether its scores are kept, where the service has a cache.
    """

    # What may change without changing a score, and is no part of the version.
    UNVERSIONED: ClassVar[frozenset[str]] = frozenset({"concurrency", "cache"})

    name: str = Field(pattern=NAME_PATTERN)
    language: str = Field(default="en", pattern=r"^[a-z]{2,3}$")
    concurrency: int = Field(default=8, ge=1)
    cache: bool = True

    @property
    def served_name(self) -> str:
        """What requests call it."""
        return self.name


class ApiSettings(TextSettings):
    """What every remote service has.

    Attributes:
        key_env: Environment variable that holds the key.
        timeout_s: Of one try.
        attempts: Tries of one call: the first, and those after 429, 408, 5xx, lost connections and broken replies.
        requests_per_s: Quota, held by spacing requests evenly, tries included; unlimited if absent.
    """

    UNVERSIONED: ClassVar[frozenset[str]] = TextSettings.UNVERSIONED | {
        "key_env",
        "timeout_s",
        "attempts",
        "requests_per_s",
    }

    key_env: str | None = Field(default=None, pattern=KEY_ENV_PATTERN)
    timeout_s: float = Field(default=30.0, gt=0)
    attempts: int = Field(default=5, ge=1)
    requests_per_s: float | None = Field(default=None, gt=0)


class PerspectiveSettings(ApiSettings):
    """The toxicity of Google's Perspective API, or of a service that speaks its protocol.

    Attributes:
        base_url: Of the service.
        attribute: Which of its scores to take.
        scoring: `prefix_difference` gives each sentence the toxicity that it adds; `direct` gives the whole response
            1 - toxicity.
        do_not_store: Asks the service not to keep the texts.
    """

    source: Literal["perspective"]
    base_url: str = Field(default="https://commentanalyzer.googleapis.com", pattern=URL_PATTERN)
    key_env: str | None = Field(default="PERSPECTIVE_API_KEY", pattern=KEY_ENV_PATTERN)
    requests_per_s: float | None = Field(default=1.0, gt=0)
    attribute: str = Field(default="TOXICITY", pattern=r"^[A-Z][A-Z_]*$")
    scoring: Literal["prefix_difference", "direct"] = "prefix_difference"
    do_not_store: bool = True


class JudgeSettings(ApiSettings):
    """A language model behind an OpenAI-compatible chat endpoint that labels each segment.

    Attributes:
        base_url: What stands before `/chat/completions`, such as `https://api.openai.com/v1`.
        model: What the endpoint calls its model.
        granularity: What the segments are.
        labels: Each label and its description for the judge.
        ok_label: The label that means "no error".
        instructions: The judge's task; the labels and the reply's form are told to it besides.
        samples: Answers to ask for; a segment's score is the share of them that say `ok_label`.
        temperature: Of the sampling; more than one sample at 0 would be one answer several times.
    """

    source: Literal["judge"]
    base_url: str = Field(pattern=URL_PATTERN)
    model: str = Field(min_length=1)
    granularity: Granularity = Granularity.SENTENCE
    labels: dict[str, str] = Field(min_length=2)
    ok_label: str = "ok"
    instructions: str = Field(default=DEFAULT_INSTRUCTIONS, min_length=1)
    samples: int = Field(default=1, ge=1, le=64)
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)

    @model_validator(mode="after")
    def _can_be_meant(self) -> "JudgeSettings":
        if self.ok_label not in self.labels:
            raise ValueError(f"ok_label {self.ok_label!r} is not among the labels {', '.join(self.labels)}")
        if self.samples > 1 and self.temperature == 0.0:
            raise ValueError("several samples need a temperature over 0")
        return self


class CallableSettings(TextSettings):
    """A Python function.

    Attributes:
        function: `module:function`, sync or async; the module must be importable.
        kind: `classifier` gives P(no error) in [0, 1], `regression` any scalar.
        granularity: What the segments are.
        packages: Installed distributions whose versions become part of the model's, because its scores depend on them.
        batch_items: Responses that it gets at a time.
        concurrency: Calls that may be under way at a time; of a sync function, its threads.
        cache: Whether its scores are kept. Only its author knows whether they depend on nothing but the text.
    """

    UNVERSIONED: ClassVar[frozenset[str]] = TextSettings.UNVERSIONED | {"batch_items"}

    source: Literal["callable"]
    function: str = Field(pattern=FUNCTION_PATTERN)
    kind: Literal["classifier", "regression"]
    granularity: Granularity = Granularity.SENTENCE
    packages: tuple[str, ...] = ()
    batch_items: int = Field(default=32, ge=1)
    concurrency: int = Field(default=1, ge=1)
    cache: bool = False
