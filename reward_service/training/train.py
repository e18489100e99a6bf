"""Feedback in, published reward models out."""

import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from reward_proto.feedback import FeedbackExample
from reward_proto.models import ModelKind
from reward_service.core.encode import InputEncoder, InputSpec
from reward_service.core.segment import SEGMENTER_VERSION
from reward_service.domain import Encoded, Head
from reward_service.errors import ConfigError
from reward_service.registry.architecture import default_readout, position_limit, read_config
from reward_service.registry.files import check_directory, sha256_of
from reward_service.registry.manifest import Manifest, SegmenterSpec
from reward_service.registry.store import Published, Store
from reward_service.training import model as models
from reward_service.training.config import ModelConfig, TrainConfig
from reward_service.training.dataset import build_pair_examples, build_span_examples, read_feedback, text_items
from reward_service.training.evaluate import RULE_FILE
from reward_service.training.fit import Run, fit
from reward_service.training.labels import LABELS, OK_LABEL, SpanRule
from reward_service.training.objectives import Objective, PairObjective, SpanObjective, calibrate, teaches
from reward_service.training.pairs import pairs_of
from reward_service.training.samples import PARITY_FILE, write_text_items

PARITY_EXAMPLES = 16
"""Held-out questions whose four predictions are published with a model, to check its exports on."""


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


def train_models(
    config: TrainConfig, only: Sequence[str] = (), *, force: bool = False, console: Console | None = None
) -> list[TrainedModel]:
    """Train and publish every model of a file.

    Args:
        config: The settings.
        only: Names of the models to train; all of them when empty.
        force: Train also what was published from the same data and settings.
        console: For progress bars and messages; silent when absent.

    Raises:
        ConfigError: Unknown names, malformed feedback, or inputs longer than a model allows.
        StoreError: The encoder cannot be loaded.
    """
    console = console or Console(quiet=True)
    unknown = sorted(set(only) - set(config.models))
    if unknown:
        raise ConfigError("--only", [f"{name}: no such model; there is {', '.join(config.models)}" for name in unknown])
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    models.silence_transformers()
    store = Store(config.store)
    train, dev = read_feedback(config.data.train), read_feedback(config.data.dev)
    results = []
    for name in only or config.models:
        digest = settings_digest(config, name)
        earlier = None if force else find_trained(store, name, digest)
        if earlier is not None:
            store.point(name, earlier.version, ["latest"])
            console.print(f"{name}: already trained from this data and these settings, {earlier.version}")
            results.append(TrainedModel(earlier, 0.0, skipped=True))
            continue
        start = time.perf_counter()
        published = train_one(config, name, train, dev, digest, store, console)
        results.append(TrainedModel(published, time.perf_counter() - start, skipped=False))
    return results


def train_one(
    config: TrainConfig,
    name: str,
    train: Sequence[FeedbackExample],
    dev: Sequence[FeedbackExample],
    digest: str,
    store: Store,
    console: Console,
) -> Published:
    """Train one model and publish it; see `train_models`."""
    settings = config.models[name]
    head = Head(settings.kind, LABELS, OK_LABEL) if settings.kind.is_classifier else Head(settings.kind)
    encoder_config = read_config(config.encoder)
    limit = position_limit(encoder_config)
    if limit is not None and settings.training.max_tokens > limit:
        raise ConfigError(name, [f"max_tokens {settings.training.max_tokens} is over the encoder's {limit} positions"])
    tokenizer = models.load_tokenizer(config.encoder)
    readout = default_readout(encoder_config)
    spec = InputSpec(settings.template, (settings.kind,), settings.training.max_tokens, settings.cut_field, readout)
    encoder = InputEncoder(tokenizer, spec)
    objective, responses = build_objective(settings, head, encoder, train, dev)
    device = torch.device(_device(config.device))
    model: Any = models.build_model(
        config.encoder,
        settings.kind,
        head.labels,
        pad_id=encoder.pad_id,
        vocab_size=tokenizer.get_vocab_size(),
        seed=config.seed,
        # On a CPU the backward pass of torch's fused attention is slower in bf16 than eager attention's.
        attention="eager" if config.precision == "bf16" and device.type == "cpu" else "sdpa",
    ).to(device)
    backend = models.ModuleBackend(model, device)
    run = Run(name, config.seed, device, config.precision == "bf16", console)
    metrics = fit(model, objective, settings.training, backend, run)
    manifest = Manifest(
        name=name,
        kind=settings.kind,
        granularity=settings.granularity,
        template=settings.template,
        labels=head.labels,
        ok_label=head.ok_label,
        max_tokens=settings.training.max_tokens,
        cut_field=settings.cut_field,
        readout=readout,
        segmenter=SegmenterSpec(version=SEGMENTER_VERSION),
        calibration=calibrate(backend, head, responses, encoder.pad_id),
        metrics={key: value for key, value in metrics.items() if value is not None},
        trained_on={"settings": digest},
    )
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch)
        models.save_model(model, config.encoder, files)
        items = [item for example in dev[:PARITY_EXAMPLES] for item in text_items(example)]
        write_text_items(files / PARITY_FILE, items)
        (files / RULE_FILE).write_text(_canonical(settings), encoding="utf-8")
        return store.publish(files, manifest)


def build_objective(
    settings: ModelConfig,
    head: Head,
    encoder: InputEncoder,
    train: Sequence[FeedbackExample],
    dev: Sequence[FeedbackExample],
) -> tuple[Objective, list[Encoded]]:
    """Encode and label the examples of a model.

    Returns:
        The objective, and every training response, also of examples that teach nothing, for the calibration.

    Raises:
        ConfigError: No example teaches anything, or inputs are too long.
    """
    objective: Objective
    if settings.kind is ModelKind.TOKEN_CLASSIFICATION:
        rule = SpanRule(settings.error_types, settings.ignore_error_types, settings.min_error_words)
        spans, held_out = (build_span_examples(part, encoder, settings.granularity, rule) for part in (train, dev))
        responses = [example.encoded for example in spans]
        objective = SpanObjective([example for example in spans if teaches(example)], held_out, head, encoder.pad_id)
    else:
        pairs, held_out_pairs = (
            build_pair_examples(
                part, encoder, pairs_of(part, settings.pairs or "preference", settings.coverage_similarity)
            )
            for part in (train, dev)
        )
        responses = [encoded for example in pairs for encoded in example.encoded]
        taught = [example for example in pairs if teaches(example)]
        objective = PairObjective(taught, held_out_pairs, head, encoder.pad_id)
    if not objective.lengths:
        raise ConfigError("feedback", ["no training example has a segment or a pair to learn from"])
    return objective, responses


def settings_digest(config: TrainConfig, name: str) -> str:
    """SHA-256 over all that decides what a model becomes: settings, feedback files, encoder, segmenter."""
    parts = {
        "model": json.loads(_canonical(config.models[name])),
        "seed": config.seed,
        "precision": config.precision,
        "train": [sha256_of(path) for path in config.data.train],
        "dev": [sha256_of(path) for path in config.data.dev],
        "encoder": {path.name: sha256_of(path) for path in check_directory(config.encoder)},
        "segmenter": SEGMENTER_VERSION,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def find_trained(store: Store, name: str, digest: str) -> Published | None:
    """The version that was trained under a settings digest, verified; None where there is none."""
    for published in store.list():
        if published.name == name and published.manifest.trained_on.get("settings") == digest:
            return store.resolve(f"{name}@{published.version}")
    return None


def _canonical(settings: ModelConfig) -> str:
    """The settings as JSON, sets sorted, so that equal settings give equal text."""
    content = settings.model_dump(mode="json")
    for key in ("error_types", "ignore_error_types"):
        content[key] = sorted(content[key])
    return json.dumps(content, indent=2, sort_keys=True)


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device", ["cuda: torch finds no such device"])
    return wanted
