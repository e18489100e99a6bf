"""Invariant 15: resume is bit-exact on CPU, across processes of the real command line, one of them killed with SIGKILL.

tests/rl_client/recipes has the quick variants in one process.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml

from rl_client.api.testing import FakeModel, FakeRewardService

DEADLINE_S = 240


@pytest.fixture
def service_url():
    """The fake service behind a real port."""
    service = FakeRewardService([FakeModel("length", score=lambda text: -0.1 * len(text.split()))])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            request = httpx.Request(self.command, f"http://x{self.path}", headers=dict(self.headers), content=body)
            reply = service.transport.handle_request(request)
            content = reply.read()
            self.send_response(reply.status_code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def start(policy_dir, prompts_file, tmp_path, service_url, network_settings):
    """Starts `rl-client train` in a process of its own."""

    def start(output: str, *options: str) -> subprocess.Popen[bytes]:
        settings = {
            "output": str(tmp_path / output),
            "threads": 1,
            "device": "cpu",
            "policy": str(policy_dir),
            **network_settings,
            "prompts": str(prompts_file),
            "service": {"url": service_url},
            "rewards": [{"model": "length", "normalization": "zscore"}],
            "kl": {"estimator": "k3", "target": 0.5},
            "generation": {"max_new_tokens": 6, "samples_per_prompt": 4},
            "ppo": {"steps": 60, "prompts_per_step": 4, "epochs": 2, "minibatch_size": 8, "learning_rate": 3e-3},
            "checkpoint": {"every_steps": 4, "keep": 2},
        }
        path = tmp_path / f"{output}.yaml"
        path.write_text(yaml.safe_dump(settings))
        command = [
            sys.executable,
            "-c",
            "from rl_client.cli import app; app()",
            "train",
            "--config",
            str(path),
            *options,
        ]
        return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})

    return start


def lines(output: Path) -> list[str]:
    path = output / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def figures(output: Path) -> list[dict]:
    found = [json.loads(line) for line in lines(output)]
    return [{name: value for name, value in line.items() if not name.endswith("_s")} for line in found]


@pytest.mark.slow
def test_a_process_killed_outright_resumes_as_if_it_had_not_been(start, tmp_path):
    assert start("unbroken").wait(DEADLINE_S) == 0
    killed = start("killed")
    give_up = time.monotonic() + DEADLINE_S
    while len(lines(tmp_path / "killed")) < 6:
        assert killed.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait(DEADLINE_S)
    assert not (tmp_path / "killed" / "policy").exists()
    assert start("killed", "--resume").wait(DEADLINE_S) == 0
    assert figures(tmp_path / "killed") == figures(tmp_path / "unbroken")
    weights = [(tmp_path / name / "policy" / "model.safetensors").read_bytes() for name in ("killed", "unbroken")]
    assert weights[0] == weights[1]
