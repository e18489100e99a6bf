import logging
import subprocess
import sys
import threading

import pytest

from rl_client.training.background import Background

TIMEOUT_S = 20.0


def test_work_is_done_in_order_by_other_threads():
    done = []
    with Background(1, "scoring") as background:
        futures = [background.submit(lambda n=n: done.append((n, threading.current_thread().name))) for n in range(3)]
        for future in futures:
            future.result(TIMEOUT_S)
    assert done == [(0, "scoring-0"), (1, "scoring-0"), (2, "scoring-0")]


def test_as_many_pieces_run_at_a_time_as_there_are_threads():
    together = threading.Barrier(3)
    with Background(3, "scoring") as background:
        futures = [background.submit(lambda: together.wait(TIMEOUT_S)) for _ in range(3)]
        assert sorted(future.result(TIMEOUT_S) for future in futures) == [0, 1, 2]


def test_without_threads_the_caller_does_the_work_at_once():
    with Background(0, "scoring") as background:
        future = background.submit(threading.current_thread)
        assert future.done()
        assert future.result() is threading.current_thread()
        with pytest.raises(ZeroDivisionError):
            background.submit(lambda: 1 / 0).result()
        background.close()


def test_an_error_reaches_whoever_asks_and_is_not_told_twice():
    error = ValueError("no")

    def fail():
        raise error

    def run():
        with Background(1, "scoring") as background:
            background.submit(fail).result(TIMEOUT_S)

    with pytest.raises(ValueError, match="no") as caught:
        run()
    assert caught.value is error
    assert not getattr(error, "__notes__", [])


def test_an_error_that_nobody_asked_for_is_noted_on_the_one_that_ends_the_run():
    def run():
        with Background(1, "scoring") as background:
            future = background.submit(lambda: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                future.result(TIMEOUT_S)
            background.submit(lambda: None).result(TIMEOUT_S)
            raise RuntimeError("update")

    with pytest.raises(RuntimeError, match="update") as caught:
        run()
    assert caught.value.__notes__ == ["meanwhile scoring failed: ZeroDivisionError: division by zero"]


def test_an_error_that_nobody_asked_for_is_logged(caplog):
    with caplog.at_level(logging.WARNING), Background(1, "scoring", join=True) as background:
        background.submit(lambda: 1 / 0)
        background.submit(lambda: None).result(TIMEOUT_S)
    assert "scoring failed, and nobody waits for it: ZeroDivisionError" in caplog.text


def test_what_has_not_begun_is_given_up_and_what_has_is_told_to_end():
    begun = threading.Event()
    background = Background(1, "generation", join=True)

    def work() -> str:
        begun.set()
        assert background.closing.wait(TIMEOUT_S)
        return "ended"

    running, waiting = background.submit(work), background.submit(lambda: "done")
    assert begun.wait(TIMEOUT_S)
    background.close()
    assert running.result(0) == "ended"
    assert waiting.cancelled()


def test_work_that_hangs_does_not_keep_the_process():
    code = """
import threading
from rl_client.training.background import Background
begun = threading.Event()
with Background(1, "scoring") as background:
    background.submit(lambda: (begun.set(), threading.Event().wait()))
    assert begun.wait(20)
    raise KeyboardInterrupt
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert b"KeyboardInterrupt" in done.stderr
