"""The dashboard's shape; its queries are asked of a real Prometheus in tests/reward_service/test_monitored.py."""

import json
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/reward-service.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
WORDS = {"latency by job", "wait in the queue by model", "queue", "padding waste", "batch size", "drift", "cache hits"}


def test_it_shows_what_operators_ask_for() -> None:
    titles = {panel["title"].lower() for panel in PANELS}
    assert [word for word in WORDS if not any(word in title for title in titles)] == []
    assert all(panel["description"] for panel in PANELS)


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for one, other in combinations((panel["gridPos"] for panel in DASHBOARD["panels"]), 2):
        apart = [one[at] + one[size] <= other[at] or other[at] + other[size] <= one[at] for at, size in ("xw", "yh")]
        assert any(apart), (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in PANELS)


def test_every_variable_that_a_query_uses_is_there() -> None:
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = {name for query in QUERIES for name in re.findall(r"\$(\w+)", query)} - {"__rate_interval"}
    assert used == names - {"datasource"}
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}


def test_promtool_can_read_every_query(run_checker: Callable[..., str], tmp_path: Path) -> None:
    plain = [re.sub(r"\$\w+", ".*", query.replace("$__rate_interval", "1m")) for query in QUERIES]
    rules: dict[str, Any] = {
        "groups": [{"name": "g", "rules": [{"record": f"r{n}", "expr": expr} for n, expr in enumerate(plain)]}]
    }
    (tmp_path / "queries.yml").write_text(yaml.safe_dump(rules))
    assert f"{len(QUERIES)} rules found" in run_checker("promtool", "check", "rules", str(tmp_path / "queries.yml"))


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_looks_at_this_service_alone(query: str) -> None:
    plain = re.findall(r"(?<![:\w])(?:reward|process)_\w+|\bup\b", query)
    assert query.count('job="reward-service"') == len(plain)
