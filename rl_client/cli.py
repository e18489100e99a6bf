"""The client's command line."""

from pathlib import Path
from typing import Annotated

import typer

from rl_client.evaluation.commands import compare, evaluate
from rl_client.faults import told
from rl_client.inference.commands import generate
from rl_client.offline.commands import score

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train policies on dense rewards from a service.")

for command in (score, evaluate, compare, generate):
    app.command()(command)

ConfigPath = Annotated[Path, typer.Option("--config", help="YAML settings; docs/training.md explains each.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint of the output folder.")]


@app.callback()
def main() -> None:
    """Train and evaluate policies on dense rewards from a reward service."""


@app.command()
def sft(config: ConfigPath, resume: Resume = False) -> None:
    """Fine-tune a policy on demonstrations."""
    from rl_client.training.config import SftConfig, load_config
    from rl_client.training.interrupt import EXIT_INTERRUPTED

    with told():
        settings = load_config(config, SftConfig)
        from rl_client.recipes.train_sft import train_sft

        finished = train_sft(settings, resume=resume)
    if not finished:
        raise typer.Exit(EXIT_INTERRUPTED)


@app.command()
def train(config: ConfigPath, resume: Resume = False) -> None:
    """Train a policy with PPO on rewards from a reward service."""
    from rl_client.training.config import TrainConfig, load_config
    from rl_client.training.interrupt import EXIT_INTERRUPTED

    with told():
        settings = load_config(config, TrainConfig)
        from rl_client.recipes.train_ppo import train_ppo

        finished = train_ppo(settings, resume=resume)
    if not finished:
        raise typer.Exit(EXIT_INTERRUPTED)


@app.command("convert-gguf")
def convert_gguf(
    file: Annotated[Path, typer.Argument(help="A GGUF file.")],
    output: Annotated[Path, typer.Option("--output", help="The directory to write; must not exist.")],
) -> None:
    """Write a plain Hugging Face directory from a GGUF file, in fp32."""
    with told():
        from rl_client.training.gguf_file import convert_gguf

        convert_gguf(file, output)


if __name__ == "__main__":
    app()
