"""What a version says of itself -> the cards of the models that it serves."""

from reward_service.domain import ModelCard
from reward_service.registry.store import Published


def make_cards(published: Published, runtime: str) -> list[ModelCard]:
    """One card for each output of a version.

    Args:
        published: The version.
        runtime: Backend and precision that compute it.
    """
    manifest = published.manifest
    return [
        ModelCard(
            name=output.name,
            version=published.version,
            digest=published.digest,
            aliases=published.aliases,
            head=head,
            granularity=output.granularity,
            language=manifest.segmenter.language,
            template=manifest.template,
            max_tokens=manifest.max_tokens,
            runtime=runtime,
            calibration=None if output.calibration is None else (output.calibration.mean, output.calibration.std),
        )
        for output, head in zip(manifest.outputs, manifest.logit_heads, strict=True)
    ]
