import json

import pytest

from rl_client.errors import DataError
from rl_client.offline.overoptimisation import read_courses


@pytest.fixture
def write(tmp_path):
    def make(lines, end=""):
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + end)
        return tmp_path

    return make


def test_where_the_reward_peaks_and_what_is_lost(write):
    rewards = [0.0, 1.0, 4.0, 3.0, 1.0]
    run = write([{"step": n + 1, "kl": n * 0.5, "reward/good": value} for n, value in enumerate(rewards)])
    told = read_courses(run)["good"].summarise()
    assert told["peak"] == {"step": 3.0, "kl": 1.0, "reward": 4.0}
    assert told["last"] == {"step": 5.0, "kl": 2.0, "reward": 1.0}
    assert told["drop"] == 3.0
    assert told["points"][1] == {"step": 2.0, "kl": 0.5, "reward": 1.0}


def test_a_moving_average_over_a_tenth_of_the_steps(write):
    lines = [{"step": n, "kl": float(n), "reward/good": float(n % 2)} for n in range(20)]
    course = read_courses(write(lines) / "metrics.jsonl")["good"]
    assert course.reward.tolist() == [0.0] + [0.5] * 19
    assert course.kl.tolist() == [0.0, *(n - 0.5 for n in range(1, 20))]


def test_steps_without_a_figure_and_a_torn_line_are_left_out(write):
    lines = [{"step": 1, "kl": 0.1, "reward/good": None}, {"step": 2, "kl": 0.2, "reward/good": 1.0, "reward/bad": 2.0}]
    courses = read_courses(write(lines, end='{"step": 3, "kl"'))
    assert {name: course.steps.tolist() for name, course in courses.items()} == {"good": [2.0], "bad": [2.0]}


def test_what_is_no_run_is_refused(write, tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_courses(tmp_path / "absent")
    with pytest.raises(DataError, match="no step with both 'kl' and a reward"):
        read_courses(write([{"step": 1, "loss": 2.0}]))
