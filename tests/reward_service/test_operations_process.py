"""Operating a real service: keys, models that change under load, settings read again, an orderly end."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from reward_proto import ErrorReply, ModelList, ScoreReply
from reward_service.key_file import add_key
from reward_service.keys import Role
from reward_service.registry.store import Store

TIMEOUT_S = 60.0
TEXTS = ["Yes.", "No, never; not at all.", "It is so. It is not so."]
CLIENTS = 4
MIN_REPLIES = 5
"""Of each client, before, while and after the models change."""


def entry(name: str) -> dict[str, str]:
    return {"name": name, "runtime": "onnxruntime"}


class Site:
    """A store with two versions of relevance, a file of keys, and a service over both."""

    def __init__(self, folder: Path, store: Path, publish: Callable[[Path, str, int], str], start: Any) -> None:
        self.store = folder / "store"
        shutil.copytree(store, self.store)
        self.first = Store(self.store).find("relevance").version
        self.second = publish(self.store, "relevance", 77)
        self.keys = folder / "keys.yaml"
        self.admin = add_key(self.keys, Role.ADMIN)
        self.scorer = add_key(self.keys, Role.SCORE, "bound")
        self.settings: dict[str, Any] = {
            "store": str(self.store),
            "models": [entry(f"relevance@{self.first}"), entry("factuality")],
            "auth": {"keys": str(self.keys)},
            "drain": {"grace_s": 2.0},
        }
        self.process = start(**self.settings)

    def client(self, key: str) -> httpx.Client:
        return httpx.Client(
            base_url=self.process.url, timeout=TIMEOUT_S, headers={"Authorization": f"Bearer {key}"} if key else {}
        )

    def post(self, path: str, body: Any = None, key: str | None = None) -> httpx.Response:
        with self.client(self.admin if key is None else key) as http:
            return http.post(path, json=body) if body is not None else http.post(path)

    def get(self, path: str) -> httpx.Response:
        with self.client(self.admin) as http:
            return http.get(path)

    def states(self) -> dict[str, str]:
        models = ModelList.model_validate_json(self.get("/v1/models").content).models
        return {f"{model.name}@{model.version}": model.state.value for model in models}

    def load(self, version: str) -> ModelList:
        reply = self.post("/v1/models/relevance/load", {"version": version})
        assert reply.status_code == 200, reply.text
        return ModelList.model_validate_json(reply.content)


@pytest.fixture
def site(
    tmp_path: Path,
    tiny_store: Path,
    publish_version: Callable[[Path, str, int], str],
    start_service: Any,
) -> Iterator[Site]:
    made = Site(tmp_path, tiny_store, publish_version, start_service)
    yield made
    made.process.kill()


def ask(http: httpx.Client) -> tuple[str, tuple[float | None, ...]] | httpx.Response:
    """The version that answered, and its scores; anything but a whole answer as it is."""
    items = [{"response": text, "fields": {"question": "Why?"}} for text in TEXTS]
    reply = http.post("/v1/score", json={"items": items, "models": ["relevance"]})
    if reply.status_code != 200:
        return reply
    results = ScoreReply.model_validate_json(reply.content).results
    scores = [result.scores["relevance"] for result in results]
    (version,) = {score.version for score in scores}
    return version, tuple(score.sequence_score for score in scores)


class Crowd:
    """Clients that ask without pause, each over one connection."""

    def __init__(self, site: Site) -> None:
        self._stop = threading.Event()
        self._site = site
        self.counts = [0] * CLIENTS
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._runs = [self._pool.submit(self._run, index) for index in range(CLIENTS)]

    def _run(self, index: int) -> list[tuple[str, tuple[float | None, ...]]]:
        answers = []
        with self._site.client(self._site.scorer) as http:
            while not self._stop.is_set():
                answer = ask(http)
                if isinstance(answer, httpx.Response):
                    assert ErrorReply.model_validate_json(answer.content).error.code == "draining", answer.text
                    break
                answers.append(answer)
                self.counts[index] += 1
        return answers

    def go_on(self) -> None:
        """Wait until each client has had some more answers."""
        wanted = [count + MIN_REPLIES for count in self.counts]
        while any(count < least for count, least in zip(self.counts, wanted, strict=True)):
            for run in self._runs:
                if run.done():
                    run.result()  # raises what ended it
                    raise AssertionError("a client ended early")
            self._stop.wait(0.02)

    def answers(self, *, stop: bool = True) -> list[list[tuple[str, tuple[float | None, ...]]]]:
        """Everything that each client got, once they have ended."""
        if stop:
            self._stop.set()
        return [run.result(TIMEOUT_S) for run in self._runs]


def test_no_request_is_lost_while_versions_change(site: Site) -> None:
    crowd = Crowd(site)
    crowd.go_on()
    for version in (site.second, site.first, "latest"):
        (model,) = site.load(version).models
        assert model.version == (site.second if version == "latest" else version)
        assert model.state == "ready"
        crowd.go_on()
    for answers in crowd.answers():
        versions = [version for version, _ in answers]
        changes = [version for index, version in enumerate(versions) if index == 0 or versions[index - 1] != version]
        assert changes == [site.first, site.second, site.first, site.second]
    scores = {answer for answers in crowd.answers() for answer in answers}
    assert len(scores) == 2, "each version gives its own scores, and always the same"
    assert site.get("/readyz").status_code == 200
    infos = [line for line in site.get("/metrics").text.splitlines() if line.startswith("reward_model_info{")]
    assert sum('model="relevance"' in line for line in infos) == 1
    assert any(site.second in line for line in infos)
    pinned = {"items": [{"response": "x"}], "models": [f"relevance@{site.first}"]}
    assert site.post("/v1/score", pinned).status_code == 404


def test_rights_and_faults_are_typed(site: Site) -> None:
    def code(path: str, body: Any = None, key: str | None = None) -> tuple[int, str]:
        reply = site.post(path, body, key)
        return reply.status_code, ErrorReply.model_validate_json(reply.content).error.code

    load, unload = "/v1/models/relevance/load", "/v1/models/relevance/unload"
    wanted = {"version": site.second}
    for path in (load, unload):
        assert code(path, wanted, key="") == (401, "unauthenticated")
        assert code(path, wanted, key="wrong") == (401, "unauthenticated")
        assert code(path, wanted, key=site.scorer) == (403, "forbidden")
    assert code(load, {"version": "0123456789ab"}) == (404, "unknown_model")
    assert code("/v1/models/nobody/load", wanted) == (404, "unknown_model")
    assert code("/v1/models/nobody/unload") == (404, "unknown_model")
    assert code(load, {}) == (422, "invalid_request")
    assert code(load, {"version": "a/b"}) == (422, "invalid_request")
    assert code(unload, {"force": True}) == (422, "invalid_request")
    (site.store / "relevance" / site.second / "config.json").write_text("{}")
    assert code(load, wanted) == (422, "invalid_request")
    assert site.states()[f"relevance@{site.first}"] == "ready"
    with site.client(site.scorer) as http:
        assert isinstance(ask(http), tuple)


def test_unloading_and_loading_again(site: Site) -> None:
    reply = site.post("/v1/models/relevance/unload")
    assert [model["state"] for model in reply.json()["models"]] == ["unloaded"]
    names = {f"relevance@{site.first}": "unloaded"}
    factuality = next(name for name in site.states() if name.startswith("factuality"))
    assert site.states() == {factuality: "ready", **names}
    assert site.get("/v1/models/relevance").json()["state"] == "unloaded"
    assert site.get("/readyz").status_code == 200
    with site.client(site.scorer) as http:
        refused = ask(http)
        assert isinstance(refused, httpx.Response)
        assert refused.status_code == 404
    site.post("/v1/models/factuality/unload")
    assert site.get("/readyz").status_code == 503, "nothing is served"
    site.load(site.first)
    assert site.get("/readyz").status_code == 200


def test_sighup_reads_the_settings_again(site: Site) -> None:
    crowd = Crowd(site)
    crowd.go_on()
    late = add_key(site.keys, Role.SCORE)
    assert site.post("/v1/segment", {"text": "One.", "granularity": "sentence"}, key=late).status_code == 401
    models = [entry("relevance"), entry("completeness")]
    site.process.write({**site.settings, "models": models, "host": "127.0.0.2", "log_level": "debug"})
    site.process.reload("the settings are in force")
    assert any("needs a restart to change: host" in line for line in site.process.log)
    ready = [name.partition("@")[0] for name, state in site.states().items() if state == "ready"]
    assert ready == ["relevance", "completeness"]
    assert site.post("/v1/segment", {"text": "One.", "granularity": "sentence"}, key=late).status_code == 200
    crowd.go_on()

    site.process.write({**site.settings, "models": [], "log_level": "loud"})
    site.process.reload("the old settings stay")
    site.process.write({**site.settings, "models": [*models, entry("nobody")]})
    site.process.reload("the old models stay")
    assert any("2 fault(s)" in line for line in site.process.log)
    assert ready == [name.partition("@")[0] for name, state in site.states().items() if state == "ready"]
    crowd.go_on()
    for answers in crowd.answers():
        assert (answers[0][0], answers[-1][0]) == (site.first, site.second)


def test_an_orderly_end_under_load_fails_no_admitted_request(site: Site) -> None:
    crowd = Crowd(site)
    crowd.go_on()
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(site.process.end)
        # Each kept connection is told 503 `draining` on its next request; nothing is cut and nothing refused before.
        assert all(len(answers) >= MIN_REPLIES for answers in crowd.answers(stop=False))
        assert ended.result(TIMEOUT_S) == 0


def test_log_and_trace_tell_of_each_request_and_no_secret(
    tmp_path: Path, tiny_store: Path, start_service: Any, collector: Any
) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    secret = add_key(tmp_path / "keys.yaml", Role.SCORE, "night")
    process = start_service(
        store=str(tiny_store),
        models=[entry("relevance")],
        auth={"keys": str(tmp_path / "keys.yaml")},
        tracing={"endpoint": collector.url},
        log_format="json",
        log_level="debug",
    )
    text = "a text that no log may hold"
    body = {"items": [{"response": text, "fields": {"question": "Why?"}}]}
    headers = {"Authorization": f"Bearer {secret}", "X-Request-Id": "r-1"}
    headers["traceparent"] = f"00-{trace_id}-00f067aa0ba902b7-01"
    assert httpx.post(f"{process.url}/v1/score", json=body, headers=headers).status_code == 200
    assert httpx.get(f"{process.url}/healthz").status_code == 200
    assert process.end() == 0
    lines = [json.loads(line) for line in process.log]
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(line) for line in lines))
    (scored,) = [line for line in lines if line.get("endpoint") == "/v1/score"]
    assert (scored["level"], scored["request_id"], scored["client_job"]) == ("INFO", "r-1", "night")
    assert (scored["status"], scored["logger"]) == (200, "reward_service.access")
    assert scored["trace_id"] == trace_id
    (probed,) = [line for line in lines if line.get("endpoint") == "/healthz"]
    assert probed["level"] == "DEBUG"
    assert secret not in "".join(process.log)
    assert text not in "".join(process.log)
    resources = [resource for _, sent in collector.received for resource in sent.resource_spans]
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    names = {span.name for span in spans if span.trace_id.hex() == trace_id}
    assert names == {"POST /v1/score", "tokenize", "queue", "inference"}
    assert not any(text.encode() in body or secret.encode() in body for body in collector.bodies)
