"""`rl-client evaluate` and `rl-client compare`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rl_client.faults import failed, told

if TYPE_CHECKING:
    from rl_client.evaluation.judge import JudgeSettings


References = Annotated[Path | None, typer.Option(help="Records of id and reference(s), for RougeLsum.")]
AverageMax = Annotated[list[str] | None, typer.Option(help="A model of errors, for average-max over samples; repeat.")]
LanguageModel = Annotated[Path | None, typer.Option("--lm", help="A model directory, for perplexity.")]
Slices = Annotated[list[str] | None, typer.Option("--slice", help="A column to slice by; repeat.")]
Examples = Annotated[int, typer.Option(min=0, help="Prompts that the report shows.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the resampling.")]


def evaluate(
    config: Annotated[Path | None, typer.Option(help="YAML settings to sample a policy; docs/training.md.")] = None,
    data: Annotated[Path | None, typer.Option(help="A file of responses, in place of a policy.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for figures.json and report.html. [the config's]")] = None,
    references: References = None,
    average_max: AverageMax = None,
    lm: LanguageModel = None,
    slices: Slices = None,
    examples: Examples = 100,
    seed: Seed = 0,
) -> None:
    """Figures of a policy, which is sampled, or of a file of responses: rewards, length, diversity, overlap."""
    if config is not None and data is not None:
        raise typer.BadParameter("give --config (a policy) or --data (a file of responses), not both")
    with _told():
        responses, folder = _given(data, out) if config is None else _sample(config, out)
        from rl_client.evaluation.judge import judge_responses

        summary = judge_responses(responses, _settings(folder, references, average_max, lm, slices, examples, seed))
    for name, figure in summary["figures"].items():
        typer.echo(f"{name:24} {_interval(figure, 'mean')}")


def compare(
    systems: Annotated[list[str], typer.Argument(help="Files or folders of responses, [NAME=]PATH; two or more.")],
    out: Annotated[Path, typer.Option(help="Folder for comparison.json and report.html.")],
    run: Annotated[
        list[str] | None, typer.Option(help="A training run, [NAME=]FOLDER: reward over KL; repeat.")
    ] = None,
    common: Annotated[bool, typer.Option("--common", help="Leave out prompts that not every file has.")] = False,
    references: References = None,
    average_max: AverageMax = None,
    lm: LanguageModel = None,
    slices: Slices = None,
    examples: Examples = 100,
    seed: Seed = 0,
) -> None:
    """Compare policies that answered the same prompts: differences, tests, win / tie / lose, a report to look at."""
    with _told():
        from rl_client.evaluation.judge import judge_several, parse_system

        told = judge_several(
            [parse_system(text) for text in systems],
            _settings(out, references, average_max, lm, slices, examples, seed),
            runs=[parse_system(text) for text in run or []],
            common=common,
        )
    for pair in told["pairs"]:
        typer.echo(f"{pair['a']} less {pair['b']}")
        for name, test in pair["figures"].items():
            counts = f"{test['win']}/{test['tie']}/{test['lose']}"
            mark = "  *" if test["found"] else ""
            typer.echo(f"  {name:22} {_interval(test, 'difference')}  {counts}  p {test['p_bootstrap_holm']:.2g}{mark}")


def _given(data: Path | None, out: Path | None) -> tuple[Path, Path]:
    if data is None or out is None:
        raise typer.BadParameter("give --config, or --data and --out")
    return data, out


def _sample(config: Path, out: Path | None) -> tuple[Path, Path]:
    """Sample a policy; where its responses are, and where the figures go."""
    from rl_client.evaluation.sample import RESPONSES_FILE, evaluate_policy
    from rl_client.training.config import EvaluateConfig, load_config

    settings = load_config(config, EvaluateConfig)
    evaluate_policy(settings)
    return settings.output / RESPONSES_FILE, out or settings.output


def _settings(
    out: Path,
    references: Path | None,
    average_max: list[str] | None,
    lm: Path | None,
    slices: list[str] | None,
    examples: int,
    seed: int,
) -> "JudgeSettings":
    from rl_client.evaluation.judge import JudgeSettings

    return JudgeSettings(
        output=out,
        references=references,
        average_max=tuple(average_max or []),
        language_model=lm,
        slices=tuple(slices or []),
        examples=examples,
        seed=seed,
    )


def _interval(figure: dict[str, Any], name: str) -> str:
    if figure[name] is None:
        return "none"
    if figure["low"] is None:
        return f"{figure[name]:.4g}"
    return f"{figure[name]:.4g} [{figure['low']:.4g}, {figure['high']:.4g}]"


@contextmanager
def _told() -> Iterator[None]:
    """`faults.told`, and an extra that is not installed."""
    try:
        with told():
            yield
    except ModuleNotFoundError as error:
        raise failed(f"{error}; this needs the extra `offline`, and sampling or perplexity `rl` too") from error
