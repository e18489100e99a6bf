"""The rules of Prometheus, by its own promtool."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
UNIT_TESTS = ("rules_test.yml", "rules_drift_test.yml", "rules_ledger_test.yml")


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def alerts() -> list[dict[str, Any]]:
    return [rule for group in read("rules.yml")["groups"] for rule in group["rules"] if "alert" in rule]


def test_promtool_accepts_the_configuration(run_checker: Callable[..., str]) -> None:
    assert "1 rule files found" in run_checker("promtool", "check", "config", "prometheus/prometheus.yml")


def test_promtool_runs_the_unit_tests_of_the_rules(run_checker: Callable[..., str]) -> None:
    said = run_checker("promtool", "test", "rules", *(f"prometheus/{name}" for name in UNIT_TESTS))
    assert said.count("SUCCESS") == len(UNIT_TESTS)


def test_every_alert_has_a_unit_test_that_fires_it_and_one_that_does_not() -> None:
    fires: dict[str, set[bool]] = {}
    for test in [test for name in UNIT_TESTS for test in read(name)["tests"]]:
        for case in test.get("alert_rule_test", []):
            fires.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    assert fires == {alert["alert"]: {True, False} for alert in alerts()}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_every_alert_is_told_and_documented(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(alert["annotations"]) == {"summary", "description"}
    assert f"`{alert['alert']}`" in (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
