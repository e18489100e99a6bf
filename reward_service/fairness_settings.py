"""Settings of the training jobs that share the service: weights, priorities, quotas."""

from pydantic import Field

from reward_service.core.fair_share import JobPolicies, JobPolicy
from reward_service.section import Section


class JobSettings(Section):
    """What one training job may have.

    Attributes:
        weight: Its share of a busy model is this over the sum of the weights of the jobs that wait.
        priority: Items of a higher priority are always before those of a lower one.
        max_queue_items: Inputs of one model that it may have waiting.
        items_per_s: Items that it may ask for, over time.
        burst_items: Items that it may ask for at once after a rest; what `items_per_s` gives in 10 s if absent.
        tokens_per_s: Real tokens that may be computed for it, over time, over all models.
        burst_tokens: The same at once after a rest; what `tokens_per_s` gives in 10 s if absent.
    """

    weight: float = Field(default=1.0, gt=0, le=1e6)
    priority: int = Field(default=0, ge=-100, le=100)
    max_queue_items: int | None = Field(default=None, ge=1)
    items_per_s: float | None = Field(default=None, gt=0)
    burst_items: float | None = Field(default=None, ge=1)
    tokens_per_s: float | None = Field(default=None, gt=0)
    burst_tokens: float | None = Field(default=None, ge=1)

    @property
    def policy(self) -> JobPolicy:
        """The same for the core."""
        return JobPolicy(**self.model_dump())


class FairnessSettings(Section):
    """How training jobs share the service.

    Attributes:
        default: Every job that is not named; callers that name no job count as one.
        jobs: Jobs by name. What is absent of one is the default's.
    """

    default: JobSettings = JobSettings()
    jobs: dict[str, JobSettings] = Field(default_factory=dict)

    def make_policies(self) -> JobPolicies:
        """The same for the core."""
        return JobPolicies(self.default.policy, self.by_job())

    def by_job(self) -> dict[str, JobPolicy]:
        """The policies of the named jobs."""
        given = self.default.model_dump()
        return {
            name: JobPolicy(**{**given, **job.model_dump(include=job.model_fields_set)})
            for name, job in self.jobs.items()
        }
