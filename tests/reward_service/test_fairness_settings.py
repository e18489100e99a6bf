import pytest
from pydantic import ValidationError

from reward_service.core.fair_share import JobPolicy
from reward_service.fairness_settings import FairnessSettings


def test_what_is_absent_of_a_job_is_the_defaults() -> None:
    settings = FairnessSettings.model_validate(
        {"default": {"weight": 2, "items_per_s": 5}, "jobs": {"a": {"priority": 1}, "b": {"weight": 1}}}
    )
    policies = settings.make_policies()
    assert policies.of("a") == JobPolicy(weight=2, priority=1, items_per_s=5)
    assert policies.of("b") == JobPolicy(weight=1, items_per_s=5)
    assert policies.of("anybody") == policies.of("") == JobPolicy(weight=2, items_per_s=5)


def test_a_quota_of_the_default_can_be_lifted() -> None:
    settings = FairnessSettings.model_validate({"default": {"tokens_per_s": 5}, "jobs": {"a": {"tokens_per_s": None}}})
    assert settings.make_policies().of("a").tokens_per_s is None


@pytest.mark.parametrize("fault", [{"weight": 0}, {"weight": float("inf")}, {"items_per_s": 0}, {"share": 1}])
def test_nonsense_is_refused(fault: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        FairnessSettings.model_validate({"jobs": {"a": fault}})
