"""From what a model was trained, as a digest, so that the same work is not done twice."""

import hashlib
import json

from reward_service.core.segmenter_version import segmenter_version
from reward_service.registry.files import check_directory, sha256_of
from reward_service.registry.store import Published, Store
from reward_service.training.config import InputConfig, TrainConfig


def settings_digest(config: TrainConfig, name: str) -> str:
    """SHA-256 over all that decides what a model becomes: settings, feedback and its slices, encoder, segmenter."""
    parts = {
        "model": json.loads(canonical(config.entry(name))),
        "seed": config.seed,
        "precision": config.precision,
        "format": config.data.format,
        "train": [[sha256_of(file.path), file.slice] for file in config.data.train],
        "dev": [[sha256_of(file.path), file.slice] for file in config.data.dev],
        "encoder": {path.name: sha256_of(path) for path in check_directory(config.encoder, ignore_folders=True)},
        "segmenter": segmenter_version(config.entry(name).language),
    }
    if name in config.networks:
        parts["heads"] = json.loads(rule_text(config, name))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def find_trained(store: Store, name: str, digest: str) -> Published | None:
    """The version that was trained under a settings digest, verified; None where there is none."""
    for published in store.list():
        if published.name == name and published.manifest.trained_on.get("settings") == digest:
            return store.resolve(f"{name}@{published.version}")
    return None


def rule_text(config: TrainConfig, name: str) -> str:
    """What an entry is taught, as JSON: a model's settings, or those of a network's heads."""
    if name in config.models:
        return canonical(config.models[name])
    heads = {head: json.loads(canonical(config.models[head])) for head in config.networks[name].heads}
    return json.dumps({"heads": heads}, indent=2, sort_keys=True)


def canonical(settings: InputConfig) -> str:
    """The settings as JSON, sets sorted, so that equal settings give equal text."""
    content = settings.model_dump(mode="json")
    for key in {"error_types", "ignore_error_types"} & content.keys():
        content[key] = sorted(content[key])
    return json.dumps(content, indent=2, sort_keys=True)
