"""Commands that serve: `serve` and `openapi`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from reward_service.cli.faults import fail
from reward_service.errors import ConfigError, ServiceError, StoreError


def serve(
    config: Annotated[Path, typer.Option(help="Settings, as YAML.")],
    host: Annotated[str | None, typer.Option(help="Address to listen on, in place of the file's.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port, in place of the file's.")] = None,
) -> None:
    """Serve reward models over HTTP until SIGTERM."""
    from reward_service.config import ServiceSettings, load_settings
    from reward_service.logs import configure_logging
    from reward_service.serve import serve as serve_models

    try:
        given = {name: value for name, value in {"host": host, "port": port}.items() if value is not None}

        def read() -> ServiceSettings:
            return load_settings(config, ServiceSettings).model_copy(update=given)

        settings = read()
        configure_logging(settings.log_level, settings.log_format)
        serve_models(settings, read)
    except (ConfigError, StoreError, ServiceError, OSError) as error:
        fail(error)


def openapi(
    output: Annotated[Path | None, typer.Option(help="File to write; standard output otherwise.")] = None,
) -> None:
    """Export the OpenAPI document of the HTTP interface."""
    from reward_service.serve import openapi_document

    text = json.dumps(openapi_document(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")
