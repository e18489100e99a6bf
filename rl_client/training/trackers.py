"""Where a run's figures go beside metrics.jsonl: TensorBoard, Weights & Biases, behind one seam."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch.utils.tensorboard import SummaryWriter

from rl_client.errors import ConfigError
from rl_client.training.durable import writing
from rl_client.training.settings_diagnostics import DiagnosticsSettings, WandbSettings

TENSORBOARD_FOLDER = "tensorboard"
RUN_ID_CHARS = 16


class Tracker(Protocol):
    """Shows figures over steps."""

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Take a step's figures, all finite."""

    def write_page(self, step: int, name: str, html: str) -> None:
        """Take a self-contained page of a step."""

    def close(self) -> None:
        """Flush and close."""


class TensorBoardTracker:
    """Scalars in TensorBoard's files; pages it cannot show, they are in the run's folder."""

    def __init__(self, output: Path, *, after_step: int) -> None:
        """Open the files; figures of steps past `after_step`, from before a crash, are dropped when they are read."""
        self._writer = SummaryWriter(str(output / TENSORBOARD_FOLDER), purge_step=after_step + 1)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def write_page(self, step: int, name: str, html: str) -> None:
        """See `Tracker`."""

    def close(self) -> None:
        """See `Tracker`."""
        self._writer.close()


class WandbTracker:
    """A run at Weights & Biases; a resumed run goes on under its own id, and steps that it has stay as they are."""

    def __init__(self, settings: WandbSettings, output: Path, config: Mapping[str, Any]) -> None:
        """Begin the run, or go on with it.

        Raises:
            ConfigError: If the package is not installed.
        """
        try:
            import wandb
        except ImportError as error:
            raise ConfigError("settings", ["diagnostics.wandb needs the extra `wandb`"]) from error
        self._wandb = wandb
        self._run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            name=settings.name,
            mode=None if settings.mode is None else settings.mode.value,
            dir=str(output),
            id=hashlib.sha256(str(output.resolve()).encode()).hexdigest()[:RUN_ID_CHARS],
            resume="allow",
            config=dict(config),
            settings=wandb.Settings(console="off"),  # the progress bar is no log
        )

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.log(dict(figures), step=step)

    def write_page(self, step: int, name: str, html: str) -> None:
        """See `Tracker`."""
        self._run.log({name: self._wandb.Html(html, inject=False)}, step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()


def open_trackers(
    settings: DiagnosticsSettings, output: Path, config: Mapping[str, Any], *, after_step: int
) -> list[Tracker]:
    """The trackers that the settings ask for.

    Args:
        settings: Which.
        output: The run's folder.
        config: The run's settings, to be shown beside it.
        after_step: The step that the run goes on from.

    Raises:
        ConfigError: If a package that one needs is not installed.
        OutputError: If a file of one cannot be made.
    """
    trackers: list[Tracker] = []
    with writing("the trackers' files"):
        if settings.tensorboard:
            trackers.append(TensorBoardTracker(output, after_step=after_step))
        if settings.wandb is not None:
            trackers.append(WandbTracker(settings.wandb, output, config))
    return trackers
