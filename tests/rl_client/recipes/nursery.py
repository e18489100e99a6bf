"""Runs `rl-client` in several processes at a time, as a launcher does, without importing torch anew for each.

Reads lines of JSON `{"arguments": [...], "environment": {...}, "port": ..., "count": ...}`; forks the processes; prints
their ids, and then their exit statuses, a line each. What they print goes to the file `log` of the line.
"""

import json
import os
import sys

from rl_client.cli import app
from rl_client.recipes import train_ppo  # imported now, so that no process need

assert train_ppo


def serve() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        children = [fork(order, rank) for rank in range(order["count"])]
        print(json.dumps(children), flush=True)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(statuses), flush=True)


def fork(order: dict, rank: int) -> int:
    child = os.fork()
    if child:
        return child
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": order["port"], "WORLD_SIZE": order["count"]}
    place |= {"RANK": rank, "LOCAL_RANK": rank, **order["environment"]}
    os.environ |= {name: str(value) for name, value in place.items()}
    status = 1
    try:
        app(order["arguments"])
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
