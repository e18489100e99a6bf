"""`rl-client score`."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rl_client.faults import failed, told

if TYPE_CHECKING:
    from rl_client.offline.bulk import BulkResult, BulkSettings

DEFAULT_URL = "http://127.0.0.1:8000"

Files = Annotated[list[Path] | None, typer.Option(help="Earlier output, ledger export or responses.jsonl; repeat.")]
Models = Annotated[list[str] | None, typer.Option(help="name, name@alias or name@version; repeat or use commas. [all]")]
Urls = Annotated[list[str] | None, typer.Option(help=f"Where the service is; repeat for replicas. [{DEFAULT_URL}]")]
Fields = Annotated[list[str] | None, typer.Option(help="A template's input: NAME or NAME=COLUMN; repeat.")]


class Engine(StrEnum):
    """What runs the requests."""

    LOCAL = "local"
    RAY = "ray"


def score(
    data: Annotated[Path, typer.Option(help=".jsonl, .parquet, a folder of these, or one of `datasets`.")],
    out: Annotated[Path, typer.Option(help="The .parquet to write; scores of one that is there are reused.")],
    models: Models = None,
    url: Urls = None,
    reuse: Files = None,
    split: Annotated[str | None, typer.Option(help="Which split of a DatasetDict.")] = None,
    id_column: Annotated[str, typer.Option()] = "id",
    prompt_column: Annotated[str, typer.Option()] = "prompt",
    response_column: Annotated[str, typer.Option()] = "response",
    fields_column: Annotated[str, typer.Option(help="A column of named inputs of the templates.")] = "fields",
    field: Fields = None,
    keep: Annotated[list[str] | None, typer.Option(help="A column to keep, to slice by; repeat.")] = None,
    client_job: Annotated[str, typer.Option(help="Named to the service.")] = "score",
    api_key_env: Annotated[str | None, typer.Option(help="The variable that holds the service's key.")] = None,
    timeout_s: Annotated[float, typer.Option(min=0.001, help="Bound of one request.")] = 60.0,
    retry_for_s: Annotated[float, typer.Option(min=0.0, help="How long a request is tried again.")] = 300.0,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight to each replica.")] = 4,
    batch_items: Annotated[int, typer.Option(min=1, help="Responses of one request.")] = 32,
    chunk_rows: Annotated[int, typer.Option(min=1, help="Rows put on disk together.")] = 256,
    engine: Annotated[Engine, typer.Option(help="Threads of this process, or Ray Data.")] = Engine.LOCAL,
    ray_address: Annotated[str | None, typer.Option(help="A Ray cluster. [one on this machine]")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Throw an unfinished output away.")] = False,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the counts here too.")] = None,
) -> None:
    """Score a file of responses; goes on where a killed run stopped, and computes nothing twice."""
    from rl_client.training.config import read_api_key
    from rl_client.training.interrupt import EXIT_INTERRUPTED

    try:
        from rl_client.offline.bulk import BulkSettings, score_file
        from rl_client.offline.replicas import Connection
        from rl_client.offline.rows import Columns
    except ModuleNotFoundError as error:
        raise failed(f"{error}; this command needs the extra `offline`") from error
    urls = tuple(url or [DEFAULT_URL])
    with told(ValueError):
        settings = BulkSettings(
            data=data,
            output=out,
            models=_split(models),
            connection=Connection(
                urls=urls,
                api_key=read_api_key(api_key_env),
                client_job=client_job,
                timeout_s=timeout_s,
                retry_for_s=retry_for_s,
                concurrency=concurrency,
            ),
            split=split,
            columns=Columns(
                id=id_column,
                prompt=prompt_column,
                response=response_column,
                fields=fields_column,
                named_fields=tuple(_named_field(text) for text in field or []),
                keep=tuple(keep or []),
            ),
            reuse=tuple(reuse or []),
            chunk_rows=chunk_rows,
            batch_items=batch_items,
            restart=restart,
        )
        result = _score_on_ray(settings, ray_address) if engine is Engine.RAY else score_file(settings)
    if json_out is not None:
        json_out.write_text(json.dumps(_told(result), indent=2) + "\n", encoding="utf-8")
    typer.echo(_summary(result, out))
    if not result.finished:
        raise typer.Exit(EXIT_INTERRUPTED)


def _score_on_ray(settings: "BulkSettings", address: str | None) -> "BulkResult":
    try:
        from rl_client.offline.ray_engine import score_on_ray
    except ModuleNotFoundError as error:
        raise failed(f"{error}; --engine ray needs the extra `ray`") from error
    return score_on_ray(settings, address)


def _split(texts: list[str] | None) -> tuple[str, ...] | None:
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip()) if texts else None


def _named_field(text: str) -> tuple[str, str]:
    name, _, column = text.partition("=")
    return name, column or name


def _told(result: "BulkResult") -> dict[str, object]:
    names = ("computed", "cached", "reused", "failed")
    return {
        "finished": result.finished,
        "rows": result.rows,
        "models": {
            name: {"version": version, "runtime": runtime} for name, (version, runtime) in result.models.items()
        },
        "scores": {name: result.counts[name] for name in names},
    }


def _summary(result: "BulkResult", out: Path) -> str:
    counts = result.counts
    return (
        f"{out}: {result.rows} rows{'' if result.finished else ', unfinished: run the same command to go on'}. "
        f"Scores: {counts['computed']} computed, {counts['cached']} from the service's cache, "
        f"{counts['reused']} from files, {counts['failed']} failed."
    )
