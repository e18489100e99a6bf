"""The real Prometheus watches two real services under load; one of them breaks, and the alerts say so.

Rules and scrape settings are those of deploy/prometheus with every duration divided by `SPEED_UP`.
"""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "reward-service.json"
SPEED_UP = 6
TIMEOUT_S = 120.0
POLL_S = 0.2
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
JOB = "ppo-7"

# A reward whose thread ends when it meets the word: what a worker does that runs into a fault of its runtime.
MORTAL = """
import asyncio

async def score(responses):
    if any("die" in one.response for one in responses):
        asyncio.get_running_loop().stop()
        await asyncio.Event().wait()
    return [[0.5 for _ in one.segments] for one in responses]
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus: apt-get install prometheus"),
]


def shorten(duration: str) -> str:
    return f"{int(duration[:-1]) * SECONDS[duration[-1]] * 1000 // SPEED_UP}ms"


def shorten_rules(text: str) -> str:
    """Every range, offset and `for` of the rules; names of recorded series stay as they are."""
    return re.sub(
        r"(?<=\[)\d+[smhd](?=\])|(?<=offset )\d+[smhd]\b|(?<=for: )\d+[smhd]\b", lambda m: shorten(m[0]), text
    )


class Prometheus:
    """A server that scrapes the services at these addresses."""

    def __init__(self, folder: Path, targets: list[str]) -> None:
        config = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
        del config["alerting"]
        config["global"] = {name: shorten(duration) for name, duration in config["global"].items()}
        config["global"]["scrape_timeout"] = config["global"]["scrape_interval"]
        (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "reward-service"]
        job["static_configs"] = [{"targets": targets}]
        config["scrape_configs"] = [job]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        (folder / "rules.yml").write_text(shorten_rules((FOLDER / "rules.yml").read_text(encoding="utf-8")))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        self._log = (folder / "log").open("wb")
        self.popen = subprocess.Popen([*command, f"--web.listen-address={address}"], stderr=self._log)
        self._http = httpx.Client(base_url=f"http://{address}", timeout=TIMEOUT_S)
        wait_for(self._is_ready, "Prometheus is ready")

    def query(self, expr: str) -> list[dict[str, Any]]:
        reply = self._http.get("/api/v1/query", params={"query": expr})
        assert reply.status_code == 200, (expr, reply.text)
        found: list[dict[str, Any]] = reply.json()["data"]["result"]
        return found

    def alerts(self, state: str) -> set[tuple[str, str]]:
        """Names and instances of the alerts that are `pending` or `firing`."""
        found = self._http.get("/api/v1/alerts").json()["data"]["alerts"]
        return {
            (alert["labels"]["alertname"], alert["labels"].get("instance", ""))
            for alert in found
            if alert["state"] == state
        }

    def end(self) -> None:
        self.popen.terminate()
        self.popen.wait(TIMEOUT_S)
        self._http.close()
        self._log.close()

    def _is_ready(self) -> bool:
        assert self.popen.poll() is None
        try:
            return self._http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False


def wait_for(condition: Callable[[], bool], what: str) -> None:
    give_up_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < give_up_s, f"not in time: {what}"
        time.sleep(POLL_S)


class Load:
    """Sends one request after another to each service until it is stopped."""

    def __init__(self, urls: list[str]) -> None:
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(url,)) for url in urls]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def _send(self, url: str) -> None:
        with httpx.Client(base_url=url, timeout=10, headers={"X-Client-Job": JOB}) as http:
            for number in count():
                if self._stopped.wait(0.05):
                    return
                texts = [f"Answer {number}. " + "It goes on. " * length for length in (1, 2, 3)]
                items = [{"response": text, "fields": {"question": "Who?"}} for text in texts]
                try:
                    http.post("/v1/score", json={"items": items, "models": ["relevance", "mortal"]})
                    http.post("/v1/score", content=b"{")
                except httpx.TransportError:
                    pass  # The service that is broken on purpose.


@pytest.fixture(scope="module")
def services(
    start_service: Callable[..., Any], tiny_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Any]:
    models = [
        {"name": "relevance", "runtime": "onnxruntime"},
        {"source": "callable", "name": "mortal", "function": "mortal:score", "kind": "classifier"},
    ]
    caches = [tmp_path_factory.mktemp("cache") / "scores.sqlite" for _ in range(2)]
    return [
        start_service({"mortal": MORTAL}, store=str(tiny_store), models=models, cache={"path": str(path)})
        for path in caches
    ]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, services: list[Any]) -> Iterator[Prometheus]:
    """Watches the services, which are under load."""
    running = Prometheus(tmp_path_factory.mktemp("prometheus"), [address_of(service) for service in services])
    load = Load([service.url for service in services])
    yield running
    load.stop()
    running.end()


def address_of(service: Any) -> str:
    return str(service.url).removeprefix("http://")


def wait_for_samples(prometheus: Prometheus, samples: int) -> None:
    """Wait until each service was scraped so often since now, and the recorded series are there."""
    scraped = "min(count_over_time(up[10m]))"
    before = float(found[0]["value"][1]) if (found := prometheus.query(scraped)) else 0.0
    wait_for(
        lambda: bool(found := prometheus.query(scraped)) and float(found[0]["value"][1]) >= before + samples,
        f"{samples} samples",
    )
    wait_for(lambda: bool(prometheus.query("model:reward_score:mean_1h")), "recorded scores")


def test_the_durations_are_shortened_and_nothing_else() -> None:
    text = "record: a:p99_5m\nexpr: x[5m] - x offset 1d\nfor: 30s\n"
    assert shorten_rules(text) == "record: a:p99_5m\nexpr: x[50000ms] - x offset 14400000ms\nfor: 5000ms\n"


def test_every_query_of_the_dashboard_shows_something(prometheus: Prometheus) -> None:
    wait_for_samples(prometheus, 3)
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    queries += [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
    empty = []
    for query in queries:
        plain = re.sub(r"\$\w+", ".*", query.replace("$__rate_interval", "1m"))
        if not prometheus.query(plain):
            empty.append(query)
    # Only what no healthy service of a few minutes has to show.
    assert [query for query in empty if not re.search(r"offset 1d|^changes\(", query)] == []


def test_every_variable_of_the_dashboard_has_values(prometheus: Prometheus, services: list[Any]) -> None:
    wait_for_samples(prometheus, 1)
    values = {}
    for variable in json.loads(DASHBOARD.read_text(encoding="utf-8"))["templating"]["list"]:
        if match := re.fullmatch(
            r"label_values\((.*), (\w+)\)", variable["query"]["query"] if variable["type"] == "query" else ""
        ):
            values[variable["name"]] = {series["metric"][match[2]] for series in prometheus.query(match[1])}
    assert values == {
        "instance": {address_of(service) for service in services},
        "model": {"relevance", "mortal"},
        "client_job": {JOB, "none"},
    }


def test_an_alert_fires_for_the_service_that_breaks_and_for_no_other(
    prometheus: Prometheus, services: list[Any]
) -> None:
    broken, sound = (address_of(service) for service in services)
    wait_for_samples(prometheus, 8)
    assert prometheus.alerts("firing") == set()
    assert httpx.get(f"{services[0].url}/readyz", timeout=TIMEOUT_S).status_code == 200

    with pytest.raises(httpx.TransportError):
        httpx.post(
            f"{services[0].url}/v1/score", json={"items": [{"response": "die"}], "models": ["mortal"]}, timeout=1
        )
    wait_for(lambda: ("RewardWorkerDead", broken) in prometheus.alerts("firing"), "RewardWorkerDead")
    assert httpx.get(f"{services[0].url}/readyz", timeout=TIMEOUT_S).status_code == 503
    assert ("RewardServiceDown", broken) not in prometheus.alerts("firing")

    services[0].kill()
    wait_for(lambda: ("RewardServiceDown", broken) in prometheus.alerts("firing"), "RewardServiceDown")
    wait_for_samples(prometheus, 2)
    assert {instance for _, instance in prometheus.alerts("firing")} <= {broken, ""}
    assert {instance for _, instance in prometheus.alerts("pending")} <= {broken, ""}
    assert prometheus.query(f'up{{instance="{sound}"}}')[0]["value"][1] == "1"
