"""A real training process against a real service process, both of which may be killed at any moment."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.kills import phases

NURSERY = Path(__file__).with_name("nursery.py")
TIMEOUT_S = 240.0
KILLED = -9
STEPS = 36
EVERY_STEPS = 2
RETRY_FOR_S = 5.0


class Nursery:
    """Starts processes of one program; see `nursery.py`."""

    def __init__(self, program: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
        self._process = subprocess.Popen(
            [sys.executable, str(NURSERY), program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def ask(self, **order: Any) -> int:
        """Its answer to an order."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it, when the processes it started have ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(TIMEOUT_S)
        self._process.stdout.close()


def wait_for(what: Callable[[], object], name: str, pause_s: float = 0.02) -> None:
    """Until it is true."""
    end_s = time.monotonic() + TIMEOUT_S
    while not what():
        assert time.monotonic() < end_s, f"no {name} within {TIMEOUT_S} s"
        time.sleep(pause_s)


class Service:
    """`reward-service serve` with two tiny models, on one port throughout.

    Each batch holds one input, so that a score does not depend on what else was asked at that moment.
    """

    def __init__(self, nursery: Nursery, folder: Path, store: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._nursery = nursery
        self._log = folder / "service.log"
        self._config = folder / "service.yaml"
        models = [{"name": name, "runtime": "torch"} for name in ("relevance", "completeness")]
        batching = {"max_batch_tokens": 1, "threads": 1, "encode_threads": 1}
        settings = {"port": port, "store": str(store), "models": models, "batching": batching}
        self._config.write_text(yaml.safe_dump({**settings, "cache": {"memory_bytes": 0}}))
        self._pid = 0

    def begin(self) -> None:
        """Start it, and wait for nothing."""
        arguments = ["serve", "--config", str(self._config)]
        self._pid = self._nursery.ask(start=arguments, log=str(self._log))

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=TIMEOUT_S, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def start(self) -> None:
        """Start it, and wait until it can score."""
        self.begin()
        wait_for(self.is_ready, f"service; see {self._log}")

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self._pid:
            os.kill(self._pid, 9)
            assert self._nursery.ask(wait=self._pid) == KILLED
            self._pid = 0


class Client:
    """`rl-client train`; every start but the first goes on with the run."""

    def __init__(self, nursery: Nursery, folder: Path, settings: dict[str, Any]) -> None:
        folder.mkdir()
        self.output = folder / "run"
        self.log = folder / "client.log"
        self._nursery = nursery
        self._phases = folder / "phases"
        self.ended_while: list[str] = []
        self._config = folder / "train.yaml"
        self._config.write_text(yaml.safe_dump({**settings, "output": str(self.output)}))
        self._pid = 0
        self._printed = 0
        phases.create(self._phases)

    def aim(self, phase: str, entry: int, delay_s: float) -> None:
        """Have it killed, now or when it is started next; see `phases.aim`."""
        phases.aim(self._phases, phase, entry, delay_s)

    def start(self) -> None:
        """Start it, unless it runs."""
        if not self._pid:
            self._printed = self.log.stat().st_size if self.log.exists() else 0
            arguments = ["train", "--config", str(self._config), "--resume"]
            self._pid = self._nursery.ask(start=arguments, log=str(self.log), watch=str(self._phases))

    def has_ended(self) -> bool:
        """Whether it ran, and does no more: until it is waited for, it is a zombie."""
        stat = Path(f"/proc/{self._pid}/stat").read_text() if self._pid else ") Z"
        return stat.rpartition(")")[2].split()[0] == "Z"

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        wait_for(self.has_ended, f"end of the client; see {self.log}")
        status = self._nursery.ask(wait=self._pid)
        self._pid = 0
        self.ended_while = self.doing()
        phases.create(self._phases)
        return status

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self._pid:
            os.kill(self._pid, 9)
            self.wait()

    def printed(self) -> str:
        """What it printed since it was started last."""
        return self.log.read_bytes()[self._printed :].decode() if self.log.exists() else ""

    def doing(self) -> list[str]:
        """The phases that it is in."""
        return phases.read(self._phases)

    def steps_logged(self) -> int:
        """The last whole line's step."""
        path = self.output / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()
        return int(json.loads(lines[-1])["step"]) if lines else 0

    def steps_saved(self) -> list[int]:
        """Of the checkpoints that are there."""
        names = [path.name for path in (self.output / "checkpoints").glob("step-*")]
        return sorted(int(re.sub(r"\D", "", name)) for name in names)


def train_settings(policy: Path, prompts: Path, url: str, steps: int) -> dict[str, Any]:
    """Whatever has a state of its own is on."""
    return {
        "threads": 1,
        "device": "cpu",
        "policy": str(policy),
        "prompts": str(prompts),
        "service": {"url": url, "retry_for_s": RETRY_FOR_S},
        "rewards": [
            {"model": "relevance", "normalization": "scale"},
            {"model": "completeness", "weight": 0.5, "normalization": "zscore"},
        ],
        "kl": {"estimator": "k3", "target": 0.5},
        "generation": {"max_new_tokens": 6, "samples_per_prompt": 4},
        "ppo": {"steps": steps, "prompts_per_step": 4, "epochs": 2, "minibatch_size": 8, "learning_rate": 3.0e-3},
        "checkpoint": {"every_steps": EVERY_STEPS, "keep": 2, "best_metric": "reward_per_segment"},
        "diagnostics": {"samples_every_steps": 20},
    }


def make_models(folder: Path) -> tuple[Path, Path, Path]:
    """A store with `relevance` and `completeness`, a policy's directory, and a file of prompts."""
    from reward_service.registry.store import Store
    from tests.reward_service.conftest import publish_tiny, tiny_manifests
    from tests.rl_client.tiny_models import make_policy, make_tokenizer

    store = Store(folder / "store")
    for manifest in tiny_manifests():
        if manifest.name == "factuality":
            continue
        publish_tiny(store, folder, manifest, seed=len(manifest.name), exported=False)
    make_policy("t5").save(folder / "policy", make_tokenizer("t5"))
    texts = [f"{a} {b} {c}" for a in ("red", "blue") for b in ("one", "two", "plain , one") for c in (".", "good")]
    lines = [{"id": f"q{i}", "prompt": text, "fields": {"question": text}} for i, text in enumerate(texts)]
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "store", folder / "policy", prompts
