"""SIGKILL at 20 random moments of one run, of the client or of the service: the run is the unbroken one all the same.

`make kill-test` shows the moments. KILL_SEED chooses others.
"""

import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.kills.arena import KILLED, STEPS, Client, Nursery, Service, make_models, train_settings, wait_for
from tests.kills.phases import SCORING

SEED = int(os.environ.get("KILL_SEED", "5"))
FINISHED, FAILED = 0, 1

AIMS = {
    "opening the run": 0.02,
    "building models": 0.1,
    "sampling": 0.03,
    SCORING: 0.04,
    "update": 0.06,
    "writing a checkpoint": 0.015,
    "pruning": 0.002,
    "naming the best": 0.002,
    "leaving models": 0.05,
}
"""Phases of the client, and within how many seconds of their begin it is killed: about as long as they take."""

FIRST, LAST, AT_A_START = "opening the run", "leaving models", "building models"
EVERY_STEP = ("sampling", SCORING, "update")
"""These are entered in each step, the others less often."""
CLIENT_KILLS = (
    *("sampling", "sampling", SCORING, "update", "update"),
    *("writing a checkpoint", "writing a checkpoint", "pruning", "naming the best"),
)
"""Beside these there are one in the first opening of the run, before it wrote anything; one while another start after a
kill loads models; and the last one, while the models are written that the run leaves."""
SERVICE_KILLS = (
    *("back at once", "back at once", "back at once", "back after a pause", "back after a pause"),
    *("killed again while it starts", "away until the client gives up", "away until the client gives up"),
)


@dataclass
class Killer:
    """Kills, starts again, and keeps a record."""

    rng: random.Random
    service: Service
    client: Client
    record: list[str] = field(default_factory=list)

    def kill_client(self, phase: str) -> None:
        """Have the client killed when it is at something, this time or one of the next."""
        entry = self.rng.randint(1, 2) if phase in EVERY_STEP else 1
        self.client.aim(phase, entry, self.rng.uniform(0.0, AIMS[phase]))
        self.client.start()
        while (status := self.client.wait()) == FAILED and self.gave_up():
            self.client.aim(phase, 1, self.rng.uniform(0.0, AIMS[phase]))
            self.client.start()
        assert status == KILLED, self.told(f"status {status}, aimed at {phase}")
        self.note(f"client, aimed at {phase}", self.client.ended_while)

    def kill_service(self, how: str) -> None:
        """Kill the service, most often while the client waits for scores, and start it again."""
        self.client.start()
        step = self.client.steps_logged() + 1
        wait_for(lambda: self.client.has_ended() or self.client.steps_logged() >= step, f"step {step}", 0.001)
        if self.rng.random() < 0.7:
            wait_for(lambda: self.client.has_ended() or SCORING in self.client.doing(), "scoring", 0.0002)
        time.sleep(self.rng.uniform(0.0, AIMS[SCORING]))
        doing = self.client.doing()
        self.service.kill()
        self.note(f"service, {how}", doing)
        if how.startswith("away"):
            assert self.client.wait() == FAILED, self.told("away")
            assert self.gave_up(), self.told("away")
            assert self.client.steps_saved()[-1] == self.client.steps_logged(), self.told("no checkpoint")
        elif how != "back at once":
            if how.startswith("killed again"):
                self.service.begin()
            time.sleep(self.rng.uniform(0.1, 1.0))
            self.service.kill()
        self.service.start()

    def gave_up(self) -> bool:
        """Whether the client ended because its service was away for too long, and said so."""
        self.record.append(f"   the client stopped at step {self.client.steps_logged()}, the service being away")
        return "ApiConnectionError" in self.client.printed()

    def note(self, what: str, doing: list[str]) -> None:
        drafts = [path.name for path in (self.client.output / "checkpoints").glob(".unfinished-*")]
        number = sum(line[0] != " " for line in self.record) + 1
        self.record.append(
            f"{number}. {what}: hit the client in {' and '.join(doing)}; {self.client.steps_logged()} steps logged, "
            f"saved {self.client.steps_saved()}{f', left {drafts}' if drafts else ''}"
        )

    def told(self, why: str) -> str:
        """What happened so far."""
        return "\n".join([f"KILL_SEED={SEED}: {why}", *self.record, self.client.printed()[-3000:]])


def plan(rng: random.Random, clients: list[str], services: list[str]) -> list[tuple[str, str]]:
    """Who is killed and how, in which order."""
    kills = [("client", phase) for phase in clients] + [("service", how) for how in services]
    rng.shuffle(kills)
    kills.insert(0, ("client", FIRST))
    place = rng.choice([index for index, (who, _) in enumerate(kills) if who == "client"])
    kills.insert(place + 1, ("client", AT_A_START))
    return [*kills, ("client", LAST)]


@pytest.fixture(scope="module")
def nurseries() -> Iterator[tuple[Nursery, Nursery]]:
    both = Nursery("rl_client"), Nursery("reward_service")
    yield both
    for nursery in both:
        nursery.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def make_killer(nurseries, models, tmp_path) -> Iterator[Any]:
    """A service that runs, and a run that did not begin."""
    store, policy, prompts = models
    service = Service(nurseries[1], tmp_path, store)
    clients = []

    def make(name: str, steps: int) -> Killer:
        settings = train_settings(policy, prompts, service.url, steps)
        clients.append(Client(nurseries[0], tmp_path / name, settings))
        return Killer(random.Random(SEED), service, clients[-1])

    service.start()
    yield make
    for client in clients:
        client.kill()
    service.kill()


def figures(client: Client) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without the timings."""
    lines = [json.loads(line) for line in (client.output / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.endswith("_s")} for line in lines]


def assert_same_run(found: Client, expected: Client, steps: int) -> None:
    assert [line["step"] for line in figures(found)] == list(range(1, steps + 1))
    assert figures(found) == figures(expected)
    for folder in ("policy", "policy_best", "value"):
        files = [(client.output / folder / "model.safetensors").read_bytes() for client in (found, expected)]
        assert files[0] == files[1], folder
    names = [sorted(path.name for path in (client.output / "checkpoints").iterdir()) for client in (found, expected)]
    assert names[0] == names[1]
    newest = [client.output / "checkpoints" / f"step-{steps:08d}" for client in (found, expected)]
    for path in newest[0].glob("*.safetensors"):
        ours, theirs = load_file(path), load_file(newest[1] / path.name)
        assert all((tensor == theirs[name]).all() for name, tensor in ours.items()), path.name
    states = [json.loads((path / "state.json").read_text())["state"] for path in newest]
    for state in states:
        del state["random"]  # of Python's own generator, which each process seeds by chance, and no run draws from
    assert states[0] == states[1]


def run_and_kill(make_killer, kills: list[tuple[str, str]], steps: int) -> None:
    unbroken = make_killer("unbroken", steps)
    unbroken.client.start()
    assert unbroken.client.wait() == FINISHED, unbroken.told("unbroken")
    killer = make_killer("killed", steps)
    for who, how in kills:
        (killer.kill_client if who == "client" else killer.kill_service)(how)
    killer.client.start()
    assert killer.client.wait() == FINISHED, killer.told("at the end")
    print("\n".join(killer.record))
    try:
        assert_same_run(killer.client, unbroken.client, steps)
    except AssertionError as error:
        error.add_note(killer.told("another run"))
        raise


@pytest.mark.slow
@pytest.mark.timeout(900)  # about one minute on two cores that do nothing else
def test_a_run_that_is_killed_at_twenty_moments_is_the_unbroken_run(make_killer):
    kills = plan(random.Random(SEED), list(CLIENT_KILLS), list(SERVICE_KILLS))
    assert len(kills) == 20
    run_and_kill(make_killer, kills, STEPS)
