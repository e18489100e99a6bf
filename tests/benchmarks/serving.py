"""A running service for the benchmarks, and clients of it."""

import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

START_S = 120.0


def serve(settings: dict[str, Any], folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start the service on a free port; returns it and its address.

    Its log is a file: a pipe that nobody reads is soon full, and stops whoever writes to it.
    """
    config, log = folder / "service.yaml", folder / "service.log"
    config.write_text(json.dumps({"port": 0, **settings}))
    command = [str(Path(sys.executable).with_name("reward-service")), "serve", "--config", str(config)]
    with log.open("wb") as written:
        process = subprocess.Popen(command, stderr=written)
    give_up_s = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < give_up_s:
        if found := re.search(r"listening on (http://\S+)", log.read_text()):
            return process, found.group(1)
        time.sleep(0.1)
    process.kill()
    raise RuntimeError(f"the service did not start: {log.read_text()[-3000:]}")


@asynccontextmanager
async def own_connections(url: str, clients: int) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Clients with a connection of their own, as separate jobs have.

    One client for all looks through all its connections whenever a request begins or ends: with 32 of them that takes
    more time than the request.
    """
    context = httpx.create_ssl_context()
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=300, verify=context))
            for _ in range(clients)
        ]
