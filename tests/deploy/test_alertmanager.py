from collections.abc import Callable


def test_amtool_accepts_the_configuration(run_checker: Callable[..., str]) -> None:
    assert "SUCCESS" in run_checker("amtool", "check-config", "alertmanager/alertmanager.yml")
