"""Settings of the reward ledger: the section `ledger` of the service's file."""

from pathlib import Path

from pydantic import Field, model_validator

from reward_service.section import Section

URL_PATTERN = r"^postgresql(\+psycopg)?://"


class LedgerSettings(Section):
    """Where every score that is given is recorded; nowhere without `path` and `url`.

    Attributes:
        path: SQLite file.
        url: PostgreSQL database, which several replicas may share. libpq's own ways to give a password count.
        texts: Whether prompts, responses and fields are recorded; their digests are always.
        max_age_days: Older scores are deleted; none are if absent.
        max_bytes: What all that is recorded may take, about; the oldest scores are deleted.
        max_pending_bytes: In memory, of what waits to be written; what is over it is dropped and counted.
        close_timeout_s: How long what waits may still be written at the end.
    """

    path: Path | None = None
    url: str | None = Field(default=None, pattern=URL_PATTERN)
    texts: bool = False
    max_age_days: float | None = Field(default=None, gt=0)
    max_bytes: int = Field(default=8 * 1024**3, ge=1024 * 1024)
    max_pending_bytes: int = Field(default=64 * 1024 * 1024, ge=1024 * 1024)
    close_timeout_s: float = Field(default=10.0, gt=0)

    @model_validator(mode="after")
    def _one_place(self) -> "LedgerSettings":
        if self.path is not None and self.url is not None:
            raise ValueError("path and url exclude each other")
        return self
