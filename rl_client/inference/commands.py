"""`rl-client generate`."""

from pathlib import Path
from typing import Annotated

import typer

from rl_client.faults import told


def generate(
    config: Annotated[Path, typer.Option("--config", help="YAML settings; docs/reranking.md explains each.")],
) -> None:
    """Answer every prompt with the best of n samples, by the served rewards, as a whole or segment by segment."""
    from rl_client.inference.settings import GenerateConfig
    from rl_client.training.config import load_config

    with told():
        settings = load_config(config, GenerateConfig)
        from rl_client.inference.run import generate_chosen

        generate_chosen(settings)
