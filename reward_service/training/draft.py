"""What is known of a model before it is trained: its manifest without calibration and figures."""

from collections.abc import Mapping, Sequence

from reward_proto.models import Calibration, ModelKind
from reward_service.core.segmenter_version import segmenter_version
from reward_service.domain import Pooling, Readout
from reward_service.registry.manifest import FINEST_FIRST, HeadSpec, Manifest, SegmenterSpec
from reward_service.training.config import ModelConfig, TrainConfig
from reward_service.training.figures import Metrics
from reward_service.training.labels import LABELS, OK_LABEL


def draft_manifest(config: TrainConfig, name: str, readout: Readout) -> Manifest:
    """The manifest of one of a file's models or networks, as far as the settings decide it."""
    settings = config.entry(name)
    shared = {
        "name": name,
        "template": settings.template,
        "max_tokens": settings.training.max_tokens,
        "cut_field": settings.cut_field,
        "readout": readout,
        "segmenter": SegmenterSpec(version=segmenter_version(settings.language), language=settings.language),
    }
    if name in config.models:
        head = _head(name, config.models[name])
        if not head.kind.is_classifier and head.pooling is not Pooling.SEPARATOR:
            # Tokens' logits are added up: one column of a token classifier, served as the scalar that it is.
            return Manifest(**shared, kind=ModelKind.TOKEN_CLASSIFICATION, granularity=head.granularity, heads=(head,))
        own = head.model_dump(include={"kind", "granularity", "labels", "ok_label", "pooling"})
        return Manifest(**shared, **own)
    heads = tuple(_head(head, config.models[head]) for head in config.networks[name].heads)
    finest = min((head.granularity for head in heads), key=FINEST_FIRST.index)
    return Manifest(**shared, kind=ModelKind.TOKEN_CLASSIFICATION, granularity=finest, heads=heads)


def finish_manifest(
    draft: Manifest, metrics: Metrics, calibrations: Sequence[Calibration], trained_on: Mapping[str, str]
) -> Manifest:
    """Put in what training has shown.

    Args:
        draft: From `draft_manifest`.
        metrics: Held-out figures by name; those of several heads as `HEAD.FIGURE`.
        calibrations: One for each of the draft's outputs.
        trained_on: What the model was trained from.
    """
    figures = {name: value for name, value in metrics.items() if value is not None}
    if not draft.heads:
        return draft.model_copy(
            update={"metrics": figures, "calibration": calibrations[0], "trained_on": dict(trained_on)}
        )
    heads = tuple(
        head.model_copy(
            update={
                "calibration": calibration,
                "metrics": figures if len(draft.heads) == 1 else _own(figures, head.name),
            }
        )
        for head, calibration in zip(draft.heads, calibrations, strict=True)
    )
    return draft.model_copy(update={"heads": heads, "trained_on": dict(trained_on)})


def column_names(manifest: Manifest) -> tuple[str, ...]:
    """A name for each column of the logits, for config.json; none for a single regressor."""
    if not manifest.heads:
        return manifest.labels
    return tuple(
        f"{head.name}.{label}" if label else head.name for head in manifest.heads for label in head.labels or ("",)
    )


def _head(name: str, settings: ModelConfig) -> HeadSpec:
    labels = LABELS if settings.kind.is_classifier else ()
    ok_label = OK_LABEL if labels else ""
    return HeadSpec(
        name=name,
        kind=settings.kind,
        granularity=settings.granularity,
        labels=labels,
        ok_label=ok_label,
        pooling=settings.pooling,
    )


def _own(figures: Mapping[str, float], head: str) -> dict[str, float]:
    prefix = f"{head}."
    return {name.removeprefix(prefix): value for name, value in figures.items() if name.startswith(prefix)}
