import pytest
from pydantic import ValidationError

from rl_client.training.settings_processes import ProcessSettings, Scoring


def test_each_process_asks_for_itself_by_default():
    assert ProcessSettings().scoring is Scoring.OWN


def test_an_unknown_way_is_a_fault():
    with pytest.raises(ValidationError, match="gathered"):
        ProcessSettings(scoring="some")
