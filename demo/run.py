"""The whole loop through the public command lines: world, SFT, feedback, reward models, service, PPO, report.

`python -m demo.run` is what `make demo` calls. Each phase that is done leaves a mark, so that a run that was stopped
goes on at the phase that is missing.
"""

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from demo.annotate import annotate_samples
from demo.configs import REWARD_MODELS, RL_SYSTEMS, SYSTEMS, Setup, write_configs
from demo.files import make_world
from demo.processes import CommandError, run_together, serving
from demo.report import write_report
from demo.results import write_results

Watch = Callable[[str], None]
EXIT_FAILED = 1


def _make_world(setup: Setup, watch: Watch) -> None:
    watch("drawing questions, passages and demonstrations")
    make_world(setup.root, setup.seed)


def _learn_language(setup: Setup, watch: Watch) -> None:
    """Two independent trainings, one a core: the policy's SFT and the encoder's pretraining."""
    sft = _resumable(setup, "sft", "sft")
    pretrain = ["python", "-m", "demo.pretrain", setup.path("encoder"), "--seed", str(setup.seed)]
    run_together({_log(setup, "sft"): sft, _log(setup, "pretrain"): pretrain}, watch)


def _resumable(setup: Setup, command: str, name: str) -> list[str]:
    """A command that goes on where an earlier call of it was stopped."""
    resume = ["--resume"] if (setup.root / name).exists() else []
    return ["rl-client", command, "--config", str(setup.config(name)), *resume]


def _sample(setup: Setup, watch: Watch) -> None:
    command = ["rl-client", "evaluate", "--config", str(setup.config("sample"))]
    run_together({_log(setup, "sample"): command}, watch)


def _annotate(setup: Setup, watch: Watch) -> None:
    watch("the oracle marks errors, missing information and preferences")
    annotate_samples(setup.root, setup.seed)


def _train_reward_models(setup: Setup, watch: Watch) -> None:
    """Two processes of one thread each; each takes a quick span model and a slower pairwise one."""
    command = ["reward-service", "train", "--config", str(setup.config("reward_models"))]
    halves = (("relevance", "completeness"), ("factuality", "preference"))
    run_together(
        {
            _log(setup, f"reward_models_{number}"): [*command, *(part for name in half for part in ("--only", name))]
            for number, half in enumerate(halves, start=1)
        },
        watch,
    )


def _export(setup: Setup, watch: Watch) -> None:
    command = ["reward-service", "export", *REWARD_MODELS, "--store", setup.path("store")]
    run_together({_log(setup, "export"): [*command, "--runtime", "onnxruntime", "--precision", "fp32"]}, watch)


def _reinforce(setup: Setup, watch: Watch) -> None:
    """Both PPO runs side by side, against one service."""
    commands = {_log(setup, system): _resumable(setup, "train", system) for system in RL_SYSTEMS}
    with serving(setup.service_config, setup.url, _log(setup, "service")):
        run_together(commands, watch)


def _evaluate(setup: Setup, watch: Watch) -> None:
    names = [f"evaluate_{system}{suffix}" for suffix in ("", "_sampled") for system in SYSTEMS]
    with serving(setup.service_config, setup.url, _log(setup, "service")):
        for first in range(0, len(names), 2):
            run_together(
                {
                    _log(setup, name): ["rl-client", "evaluate", "--config", str(setup.config(name))]
                    for name in names[first : first + 2]
                },
                watch,
            )


PHASES: dict[str, Callable[[Setup, Watch], None]] = {
    "world": _make_world,
    "sft_and_encoder": _learn_language,
    "sample": _sample,
    "annotate": _annotate,
    "reward_models": _train_reward_models,
    "export": _export,
    "ppo": _reinforce,
    "evaluate": _evaluate,
}


def _log(setup: Setup, name: str) -> Path:
    return setup.root / "logs" / f"{name}.log"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _set_up(root: Path, seed: int) -> Setup:
    """Take up the run in `root`, or begin one. The port is drawn once, since a run's settings must not change."""
    path = root / "demo.json"
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["seed"] != seed:
            raise typer.BadParameter(f"{root} holds a run with seed {kept['seed']}; choose another --output")
        return Setup(root, seed, kept["port"])
    setup = Setup(root, seed, _free_port())
    root.mkdir(parents=True, exist_ok=True)
    write_configs(setup)
    path.write_text(json.dumps({"seed": seed, "port": setup.port}), encoding="utf-8")
    return setup


def _run_phases(setup: Setup, console: Console) -> dict[str, float]:
    seconds: dict[str, float] = {}
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[line]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("demo", total=len(PHASES), line="")
        for name, phase in PHASES.items():
            mark = setup.root / "phases" / f"{name}.json"
            if mark.exists():
                seconds[name] = json.loads(mark.read_text(encoding="utf-8"))["seconds"]
                console.print(f"{name}: done before")
            else:
                progress.update(task, description=name, line="")
                start = time.monotonic()
                phase(setup, lambda line: progress.update(task, line=line))
                seconds[name] = round(time.monotonic() - start, 1)
                mark.parent.mkdir(exist_ok=True)
                mark.write_text(json.dumps({"seconds": seconds[name]}), encoding="utf-8")
                console.print(f"{name}: {seconds[name]:.0f} s")
            progress.advance(task)
    return seconds


def main(
    seed: Annotated[int, typer.Option(help="Changes every seed of the run.")] = 0,
    output: Annotated[Path, typer.Option(help="Where the run is written; a stopped run is taken up there.")] = Path(
        "runs/demo"
    ),
) -> None:
    """Run the loop of the paper in miniature and write results.json and report.html."""
    console = Console()
    setup = _set_up(output, seed)
    try:
        seconds = _run_phases(setup, console)
    except CommandError as error:
        console.print(f"[red]{error}", markup=True, highlight=False)
        raise typer.Exit(EXIT_FAILED) from error
    results = write_results(setup, seconds)
    write_report(setup, results)
    console.print(f"results: {setup.path('results.json')}\nreport: {setup.path('report.html')}")


if __name__ == "__main__":
    typer.run(main)
