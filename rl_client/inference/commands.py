"""`rl-client generate`."""

from pathlib import Path
from typing import Annotated

import typer

EXIT_FAILED = 1


def generate(
    config: Annotated[Path, typer.Option("--config", help="YAML settings; docs/reranking.md explains each.")],
) -> None:
    """Answer every prompt with the best of n samples, by the served rewards, as a whole or segment by segment."""
    from rl_client.api import RewardClientError
    from rl_client.errors import TrainingError
    from rl_client.inference.settings import GenerateConfig
    from rl_client.training.config import load_config

    try:
        settings = load_config(config, GenerateConfig)
        from rl_client.inference.run import generate_chosen

        generate_chosen(settings)
    except (TrainingError, RewardClientError, OSError) as error:
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", []))
        typer.echo(f"{type(error).__name__}: {error}{notes}", err=True)
        raise typer.Exit(EXIT_FAILED) from error
