"""Feedback in, published reward models out."""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from reward_service.errors import ConfigError
from reward_service.registry.architecture import default_readout, position_limit, read_config
from reward_service.registry.store import Published, Store
from reward_service.training import model as models
from reward_service.training.build import build_objective
from reward_service.training.checkpoint import remove_checkpoints
from reward_service.training.config import TrainConfig
from reward_service.training.dataset import Inputs, read_feedback
from reward_service.training.draft import column_names, draft_manifest, finish_manifest
from reward_service.training.encoder_parts import freeze
from reward_service.training.evaluate import HISTORY_FILE, RULE_FILE, Judged
from reward_service.training.feedback import Feedback
from reward_service.training.fit import Run, fit
from reward_service.training.interrupt import InterruptedTrainingError
from reward_service.training.objectives import calibrate
from reward_service.training.processes import Processes
from reward_service.training.provenance import find_trained, rule_text, settings_digest
from reward_service.training.report import write_report
from reward_service.training.samples import PARITY_FILE, write_text_items

PARITY_TEXTS = 64
"""Held-out responses that are published with a model, to check its exports on."""

DIGEST_LENGTH = 12
"""Hex digits of the settings' digest that name a training's folder."""


@dataclass(frozen=True)
class TrainedModel:
    """The outcome for one model.

    Attributes:
        published: Its version in the store.
        seconds: Time it took; 0 when it was there already.
        skipped: Whether the same data and settings had already been published.
    """

    published: Published
    seconds: float
    skipped: bool


@dataclass(frozen=True)
class Session:
    """What the trainings of one file share.

    Attributes:
        config: The settings.
        store: Where versions are published.
        train: Feedback to learn from.
        dev: Feedback held out.
        processes: Those that train together.
        console: For progress bars and messages; those of the main process are shown.
        should_stop: Asked after each step.
    """

    config: TrainConfig
    store: Store
    train: Feedback
    dev: Feedback
    processes: Processes
    console: Console
    should_stop: Callable[[], bool]


def train_models(
    config: TrainConfig,
    only: Sequence[str] = (),
    *,
    force: bool = False,
    console: Console | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[TrainedModel]:
    """Train and publish every model of a file.

    A training that was cut off goes on from its checkpoint. Of several processes that train together only the main one
    publishes.

    Args:
        config: The settings.
        only: Names of the models to train; all of them when empty.
        force: Train also what was published from the same data and settings, from the start.
        console: For progress bars and messages; silent when absent.
        should_stop: Asked after each step; training ends where it says so.

    Returns:
        One for each model; none in processes that are not the main one.

    Raises:
        ConfigError: Unknown names, malformed feedback, or inputs longer than a model allows.
        StoreError: The encoder cannot be loaded.
        InterruptedTrainingError: It was told to stop.
    """
    names = [*config.models, *config.networks]
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise ConfigError("--only", [f"{name}: no such model; there is {', '.join(names)}" for name in unknown])
    with Processes(config.device) as processes:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        models.silence_transformers()
        shown = console if console is not None and processes.is_main else Console(quiet=True)
        train, dev = (read_feedback(config.data.format, files) for files in (config.data.train, config.data.dev))
        session = Session(config, Store(config.store), train, dev, processes, shown, should_stop)
        results = [_train_or_keep(session, name, force=force) for name in only or names]
        return [result for result in results if result is not None]


def _train_or_keep(session: Session, name: str, *, force: bool) -> TrainedModel | None:
    processes = session.processes
    if processes.any(session.should_stop()):
        raise InterruptedTrainingError(f"{name}: stopped before its training; the same command goes on from there")
    digest = settings_digest(session.config, name)
    checkpoints = session.config.work_folder / f"{name}-{digest[:DIGEST_LENGTH]}"
    if processes.is_main and force:
        remove_checkpoints(checkpoints)
    earlier: Published | None = processes.from_main(
        find_trained(session.store, name, digest) if processes.is_main and not force else None
    )
    start = time.perf_counter()
    if earlier is None:
        published = train_one(session, name, digest, checkpoints)
        return None if published is None else TrainedModel(published, time.perf_counter() - start, skipped=False)
    if not processes.is_main:
        return None
    session.store.point(name, earlier.version, ["latest"])
    session.console.print(f"{name}: already trained from this data and these settings, {earlier.version}")
    return TrainedModel(earlier, 0.0, skipped=True)


def train_one(session: Session, name: str, digest: str, checkpoints: Path) -> Published | None:
    """Train one model, publish it and write its report; see `train_models`.

    Returns:
        The version; None in processes that are not the main one.
    """
    config, processes = session.config, session.processes
    training = config.entry(name).training
    encoder_config = read_config(config.encoder)
    draft = draft_manifest(config, name, default_readout(encoder_config))
    limit = position_limit(encoder_config)
    if limit is not None and draft.max_tokens > limit:
        raise ConfigError(name, [f"max_tokens {draft.max_tokens} is over the encoder's {limit} positions"])
    tokenizer = models.load_tokenizer(config.encoder)
    inputs = Inputs.of(draft, tokenizer)
    pad_id = inputs.encoder.pad_id
    objective, responses = build_objective(config, draft, inputs, session.train, session.dev)
    model: Any = models.build_model(
        config.encoder,
        draft.kind,
        column_names(draft),
        pad_id=pad_id,
        vocab_size=tokenizer.get_vocab_size(),
        seed=config.seed,
        # On a CPU the backward pass of torch's fused attention is slower in bf16 than eager attention's.
        attention="eager" if config.precision == "bf16" and processes.device.type == "cpu" else "sdpa",
        layers=training.layers,
        dropout=training.dropout,
    ).to(processes.device)
    if training.frozen_layers is not None:
        freeze(model, training.frozen_layers)
    backend = models.ModuleBackend(model, processes.device)
    run = Run(
        name,
        config.seed,
        processes,
        use_bf16=config.precision == "bf16",
        console=session.console,
        checkpoints=checkpoints,
        checkpoint_steps=config.checkpoint_steps,
        should_stop=session.should_stop,
    )
    metrics, history = fit(model, objective, training, backend, run)
    if not processes.is_main:
        return None
    calibrations = calibrate(backend, draft.logit_heads, responses, pad_id)
    manifest = finish_manifest(draft, metrics, calibrations, {"settings": digest})
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch)
        models.save_model(model, config.encoder, files)
        write_text_items(files / PARITY_FILE, list(islice(session.dev.texts(), PARITY_TEXTS)))
        (files / RULE_FILE).write_text(rule_text(config, name), encoding="utf-8")
        (files / HISTORY_FILE).write_text(json.dumps([asdict(epoch) for epoch in history]), encoding="utf-8")
        published = session.store.publish(files, manifest)
    remove_checkpoints(checkpoints)
    judged = [
        Judged(output, scored.examples, scored.scores, dict(output.metrics))
        for output, scored in zip(manifest.outputs, objective.score(backend), strict=True)
    ]
    path = config.reports_folder / f"{name}-{published.version}.html"
    write_report(path, published, backend.runtime, judged, history)
    session.console.print(f"{name}: {path}")
    return published
