import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rl_client.errors import OutputError
from rl_client.training.metric_log import MetricLog, read_metrics
from tests.rl_client.small_disk import no_file_larger_than


def test_a_line_a_step_with_null_for_what_is_not_a_number(tmp_path):
    with MetricLog(tmp_path, after_step=0) as log:
        log.write(1, {"kl": 0.5, "reward/a": None, "x": float("nan")})
        log.write(2, {"kl": 1.0})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "kl": 0.5, "reward/a": None, "x": None},
        {"step": 2, "kl": 1.0},
    ]


def test_lines_past_the_checkpoint_are_dropped(tmp_path):
    with MetricLog(tmp_path, after_step=0) as log:
        for step in (1, 2, 3):
            log.write(step, {"kl": float(step)})
    with MetricLog(tmp_path, after_step=1) as log:
        log.write(2, {"kl": 20.0})
    assert read_metrics(tmp_path) == [{"step": 1, "kl": 1.0}, {"step": 2, "kl": 20.0}]


def test_a_line_torn_by_a_crash_is_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "kl": 0.1}\n{"step": 2, "k')
    with MetricLog(tmp_path, after_step=5) as log:
        log.write(2, {"kl": 0.2})
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]


def test_tensorboard_holds_the_same_figures(tmp_path):
    with MetricLog(tmp_path, after_step=0) as log:
        log.write(1, {"reward/a": 0.25, "kl": None})
        log.write(2, {"reward/a": 0.5})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["reward/a"]
    assert [(event.step, event.value) for event in events.Scalars("reward/a")] == [(1, 0.25), (2, 0.5)]


def test_a_folder_without_metrics_has_none(tmp_path):
    assert read_metrics(tmp_path) == []


class Tracker:
    closed = False

    def write(self, step, figures):
        pass

    def write_page(self, step, name, html):
        raise OSError("disk full")

    def close(self):
        self.closed = True


def test_a_disk_that_is_full_is_an_error_and_its_torn_line_is_dropped(tmp_path):
    tracker = Tracker()
    log = MetricLog(tmp_path, after_step=0, trackers=[tracker])
    log.write(1, {"kl": 0.5})
    log.sync()
    with no_file_larger_than(30):
        with pytest.raises(OutputError, match="metrics of step 2 could not be written"):
            log.write(2, {"kl": 0.25})
        with pytest.raises(OutputError, match="metrics could not be written"):
            log.close()
    assert tracker.closed
    assert (tmp_path / "metrics.jsonl").stat().st_size == 30
    with MetricLog(tmp_path, after_step=2, trackers=[Tracker()]) as log:
        log.write(2, {"kl": 0.25})
        with pytest.raises(OutputError, match="page samples of step 2"):
            log.write_page(2, "samples", "<p>")
    assert read_metrics(tmp_path) == [{"step": 1, "kl": 0.5}, {"step": 2, "kl": 0.25}]
