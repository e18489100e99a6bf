import sys

import pytest

from rl_client.errors import ConfigError
from rl_client.training.settings_diagnostics import DiagnosticsSettings, WandbSettings
from rl_client.training.trackers import TensorBoardTracker, WandbTracker, open_trackers

WANDB = DiagnosticsSettings(wandb={"project": "p", "name": "n", "mode": "offline"}, tensorboard=False)


class FakeRun:
    def __init__(self):
        self.logged = []
        self.finished = False

    def log(self, figures, step):
        self.logged.append((step, figures))

    def finish(self):
        self.finished = True


class FakeWandb:
    """What of the package is used."""

    def __init__(self):
        self.inits = []
        self.run = FakeRun()

    def init(self, **options):
        self.inits.append(options)
        return self.run

    def Settings(self, **settings):
        return settings

    def Html(self, data, inject):
        return ("html", data, inject)


def test_tensorboard_is_the_default(tmp_path):
    (tracker,) = open_trackers(DiagnosticsSettings(), tmp_path, {}, after_step=0)
    assert isinstance(tracker, TensorBoardTracker)
    tracker.close()
    assert open_trackers(DiagnosticsSettings(tensorboard=False), tmp_path, {}, after_step=0) == []


def test_figures_go_to_a_run_that_can_be_resumed(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for _ in range(2):
        (tracker,) = open_trackers(WANDB, tmp_path / "run", {"seed": 3}, after_step=0)
    tracker.write(1, {"kl": 0.5})
    tracker.write_page(1, "samples", "<p>")
    tracker.close()
    assert fake.run.logged == [(1, {"kl": 0.5}), (1, {"samples": ("html", "<p>", False)})]
    assert fake.run.finished
    first, second = fake.inits
    assert first == second
    assert (first["resume"], first["settings"]) == ("allow", {"console": "off"})
    assert (first["project"], first["name"], first["mode"], first["config"]) == ("p", "n", "offline", {"seed": 3})
    open_trackers(WANDB, tmp_path / "other", {}, after_step=0)
    assert fake.inits[2]["id"] != first["id"]


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="extra `wandb`"):
        open_trackers(WANDB, tmp_path, {}, after_step=0)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["offline", None])
def test_the_real_package_offline(tmp_path, monkeypatch, mode):
    """No network: the run's file holds the figures."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracker = WandbTracker(WandbSettings(project="p", mode=mode), tmp_path, {"seed": 3})
    for step in (1, 2):
        tracker.write(step, {"kl": 0.123456, "reward/a": 1.5})
        tracker.write_page(step, "samples", "<p>page</p>")
    tracker.close()
    wandb.teardown()  # as at the end of a process: what is still under way is written
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert b"reward/a" in content
    assert b"0.123456" in content
