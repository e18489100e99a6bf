import pytest

from rl_client.training.settings_checkpoint import TrainCheckpointSettings, check_best_metric


@pytest.mark.parametrize("metric", [None, "reward_per_segment", "reward/a"])
def test_metrics_that_do_not_favour_long_answers(metric):
    check_best_metric(metric, ["a", "b"])


@pytest.mark.parametrize("metric", ["return", "reward_shaped/a", "reward/c", "component/a"])
def test_sums_and_strangers_are_refused(metric):
    with pytest.raises(ValueError, match="longest answers"):
        check_best_metric(metric, ["a", "b"])


def test_training_checkpoints_more_often():
    assert (TrainCheckpointSettings().every_steps, TrainCheckpointSettings().best_metric) == (10, None)
