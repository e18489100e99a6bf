import pytest
from pydantic import ValidationError

from rl_client.training.settings_pipeline import PipelineSettings


def test_by_default_no_rollout_is_stale():
    assert PipelineSettings().staleness == 0


@pytest.mark.parametrize(
    "settings",
    [{"staleness": 2}, {"staleness": -1}, {"concurrent_requests": -1}, {"send_share": 0}, {"send_share": 1.1}],
)
def test_what_is_out_of_range_is_refused(settings):
    with pytest.raises(ValidationError):
        PipelineSettings.model_validate(settings)
