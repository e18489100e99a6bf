"""`reward-service serve` as a process of its own, with a reward of every source side by side."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import yaml
from starlette.responses import Response
from transformers import AutoModelForSequenceClassification

from reward_proto import ModelList, ScoreReply

TIMEOUT_S = 60.0
KEYS = {"TEST_PERSPECTIVE_KEY": "AIzaVerySecret", "TEST_JUDGE_KEY": "sk-very-secret"}
TEXT = "All is well here. That is bad, so bad! It is wrong."
SPANS = [(0, 17), (18, 38), (39, 51)]
TEMPLATE = "text:"
LASTING = ["relevance", "own-toxicity", "length", "toxicity", "profanity", "judge"]
PATIENCE = {"attempts": 2, "timeout_s": 5.0, "requests_per_s": 100.0}


def judge_by_words(body: dict[str, Any]) -> str:
    texts = [segment["text"] for segment in json.loads(body["messages"][1]["content"])["segments"]]
    labels = ["incorrect" if "wrong" in text else "ok" for text in texts]
    return json.dumps({"labels": [{"segment": n, "label": label} for n, label in enumerate(labels, start=1)]})


def judge_entry(name: str, url: str) -> dict[str, Any]:
    return {
        "source": "judge",
        "name": name,
        "base_url": f"{url}/v1",
        "model": "m-1",
        "key_env": "TEST_JUDGE_KEY",
        "labels": {"ok": "Right.", "incorrect": "Wrong."},
        **PATIENCE,
    }


class Service:
    """A running service and the remote services that it asks; one test ends that of the model `mortal`."""

    def __init__(self, folder: Path, store: Path, perspective: Any, judge: Any, mortal: Any) -> None:
        self.perspective, self.judge, self.mortal = perspective, judge, mortal
        (folder / "own_reward.py").write_text(
            "async def score(responses):\n    return [[len(s) / 100 for s in one.segments] for one in responses]\n"
        )
        models = [
            {"name": "relevance", "runtime": "onnxruntime"},
            {"name": "own-toxicity", "runtime": "torch"},
            {"source": "callable", "name": "length", "function": "own_reward:score", "kind": "regression"},
            {
                "source": "perspective",
                "name": "toxicity",
                "base_url": perspective.url,
                "key_env": "TEST_PERSPECTIVE_KEY",
                **PATIENCE,
            },
            {
                "source": "callable",
                "name": "profanity",
                "function": "reward_service.text_rewards.profanity:score",
                "kind": "classifier",
                "packages": ["alt-profanity-check"],
            },
            judge_entry("judge", judge.url),
            judge_entry("mortal", mortal.url),
        ]
        config = folder / "service.yaml"
        settings = {"port": 0, "store": str(store), "models": models, "batching": {"threads": 1}, "log_level": "debug"}
        config.write_text(yaml.safe_dump(settings, sort_keys=False))
        command = [str(Path(sys.executable).with_name("reward-service")), "serve", "--config", str(config)]
        self._log = folder / "log.txt"
        environment = {**os.environ, **KEYS, "PYTHONPATH": str(folder)}
        with self._log.open("w") as log:
            self.popen = subprocess.Popen(command, stderr=log, env=environment)
        while not (found := re.search(r"listening on (http://\S+)", self.log)):
            assert self.popen.poll() is None, self.log
            time.sleep(0.05)
        self.http = httpx.Client(base_url=found.group(1), timeout=TIMEOUT_S)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def score(self, *texts: str, **more: Any) -> ScoreReply:
        items = [{"response": text, "fields": {"question": "Why?"}} for text in texts]
        reply = self.http.post("/v1/score", json={"items": items, **more})
        assert reply.status_code == 200, reply.text
        return ScoreReply.model_validate_json(reply.content)

    def end(self) -> int:
        self.http.close()
        self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(TIMEOUT_S)
        finally:
            self.popen.kill()


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, LocalServer: Any, analyze: Any, completion: Any, toxicity_store: Path
) -> Iterator[Service]:
    def answer(body: dict[str, Any]) -> Response:
        return completion(judge_by_words(body))  # type: ignore[no-any-return]

    servers = [LocalServer(analyze), LocalServer(answer), LocalServer(answer)]
    running = Service(tmp_path_factory.mktemp("process"), toxicity_store, *servers)
    yield running
    assert running.end() == 0
    for server in servers:
        server.stop()
    assert "Traceback" not in running.log


def own_toxicity(store: Path, prefix: str) -> float:
    """1 - P(ok) of a text by transformers alone: [CLS] template [SEP] text [SEP], a token for each byte."""
    (folder,) = [path for path in (store / "own-toxicity").iterdir() if (path / "model.safetensors").exists()]
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    names = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    body = [names["Ġ" if byte == " " else byte] for byte in f" {prefix}"]
    ids = [1, *(names[byte] for byte in TEMPLATE), 2, *body, 2]
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0].double()
    return 1.0 - float(torch.softmax(logits, dim=0)[0])


def test_one_request_is_answered_by_every_source(service: Service, toxicity_store: Path) -> None:
    assert service.http.get("/readyz").status_code == 200
    (result,) = service.score(TEXT, models=LASTING).results
    assert all(score.error is None for score in result.scores.values())
    found = {
        name: [(s.start, s.end, s.score, s.label) for s in score.segments or []]
        for name, score in result.scores.items()
    }
    assert found["length"] == [(*span, pytest.approx((span[1] - span[0]) / 100), None) for span in SPANS]
    assert found["judge"] == [(0, 17, 1.0, "ok"), (18, 38, 1.0, "ok"), (39, 51, 0.0, "incorrect")]
    # The prefixes have 0, 2 and 2 times `bad`, each a quarter of toxicity.
    assert found["toxicity"] == [(0, 17, 0.0, None), (18, 38, -0.5, None), (39, 51, 0.0, None)]
    assert result.scores["toxicity"].sequence_score == -0.5
    toxic = [0.0, *(own_toxicity(toxicity_store, TEXT[:end]) for _, end in SPANS)]
    expected = [-(after - before) for before, after in pairwise(toxic)]
    assert [score for _, _, score, _ in found["own-toxicity"]] == pytest.approx(expected, abs=1e-5)
    assert result.scores["own-toxicity"].sequence_score == pytest.approx(-toxic[-1], abs=1e-5)
    assert min(abs(score) for score in expected) > 1e-3, "the sentences must make a difference"
    assert len(found["relevance"]) >= 3
    assert [label for _, _, _, label in found["profanity"]] == ["ok"] * 3


def test_a_remote_service_that_is_gone_takes_no_other_score_with_it(service: Service) -> None:
    service.mortal.stop()
    for result in service.score(TEXT, "Fine.", return_logits=True).results:
        error = result.scores["mortal"].error
        assert error is not None
        assert (error.code, error.retryable, result.scores["mortal"].segments) == ("model_failed", True, None)
        for name in LASTING:
            assert result.scores[name].error is None
            assert result.scores[name].segments
    assert service.http.get("/readyz").status_code == 200
    alone = service.http.post("/v1/score", json={"items": [{"response": "x"}], "models": ["mortal"]})
    assert (alone.status_code, alone.json()["error"]["code"]) == (500, "model_failed")


def test_the_keys_go_to_their_services_and_nowhere_else(service: Service) -> None:
    service.score(TEXT, models=LASTING)
    assert service.perspective.asked[0].headers["x-goog-api-key"] == KEYS["TEST_PERSPECTIVE_KEY"]
    assert service.judge.asked[0].headers["authorization"] == f"Bearer {KEYS['TEST_JUDGE_KEY']}"
    told = [service.http.get(path).text for path in ("/v1/models", "/metrics", "/openapi.json")]
    for text in (*told, service.log):
        assert not [name for name, key in KEYS.items() if key in text]
    models = {model.name: model for model in ModelList.model_validate_json(told[0]).models}
    assert (models["judge"].runtime, models["judge"].labels) == ("openai-chat/m-1", ["ok", "incorrect"])
    assert (models["toxicity"].kind, models["toxicity"].granularity) == ("sequence_regression", "sentence")
    assert (models["own-toxicity"].kind, models["own-toxicity"].labels) == ("sequence_regression", [])
    assert all(model.state == "ready" for model in models.values())


def test_readiness_calls_nobody(service: Service) -> None:
    before = len(service.perspective.asked), len(service.judge.asked)
    assert service.http.get("/readyz").status_code == 200
    assert (len(service.perspective.asked), len(service.judge.asked)) == before


def test_a_setting_that_cannot_be_met_ends_the_start_with_its_place(tmp_path: Path, tiny_store: Path) -> None:
    models = [
        {"name": "relevance"},
        {"source": "perspective", "name": "toxicity", "key_env": "NO_SUCH_KEY"},
        {"source": "callable", "name": "mine", "function": "no_such_module:score", "kind": "classifier"},
    ]
    config = tmp_path / "service.yaml"
    config.write_text(yaml.safe_dump({"port": 0, "store": str(tiny_store), "models": models}))
    command = [str(Path(sys.executable).with_name("reward-service")), "serve", "--config", str(config)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode != 0
    assert "models[1].key_env: the environment variable NO_SUCH_KEY is not set" in ended.stderr
    assert "models[2].function: cannot import no_such_module" in ended.stderr
    assert "Traceback" not in ended.stderr
