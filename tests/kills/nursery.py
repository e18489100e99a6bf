"""Runs a command line in processes forked from this one, which has imported everything already: starts take no time.

`nursery.py rl_client|reward_service` reads orders, a line of JSON each, and answers each with a line:
`{"start": [arguments], "log": FILE, "watch": FILE}` with the new process's id, `{"wait": ID}` with its exit status.
What the process prints goes to the end of `log`; `watch` is for `phases.watch`.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "proto")]


def serve(program: str) -> None:
    """Until the orders end."""
    app = warm(program)
    for line in sys.stdin:
        order = json.loads(line)
        answer = start(app, order) if "start" in order else os.waitpid(order["wait"], 0)[1]
        print(answer if "start" in order else os.waitstatus_to_exitcode(answer), flush=True)


def warm(program: str) -> Any:
    """The command line, with what its commands import."""
    if program == "rl_client":
        from rl_client.cli import app
        from rl_client.recipes import train_ppo
        from tests.kills import phases

        assert train_ppo
        assert phases
    else:
        from transformers import BertForSequenceClassification, BertForTokenClassification

        import reward_service.runtimes.load
        import reward_service.serve
        from reward_service.cli import app

        assert reward_service.runtimes.load
        assert BertForSequenceClassification
        assert BertForTokenClassification
    return app


def start(app: Any, order: dict[str, Any]) -> int:
    """Fork, and run the command in the child."""
    child = os.fork()
    if child:
        return child
    status = 1
    watch = None
    try:
        os.close(0)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        if order.get("watch"):
            from tests.kills import phases

            watch = phases.watch(Path(order["watch"]))
        app(order["start"])
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        if watch:
            watch.end()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
