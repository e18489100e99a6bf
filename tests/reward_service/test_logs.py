import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from reward_service.logs import LogFormat, add_request, configure_logging, make_formatter
from reward_service.request_labels import RequestLabels, current_request

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def line(log_format: LogFormat, message: str = "loaded %s", **more: Any) -> str:
    record = logging.LogRecord("a.b", logging.WARNING, "x.py", 1, message, ("käse",), more.pop("exc_info", None))
    vars(record).update(more)
    add_request(record)
    return make_formatter(log_format).format(record)


@pytest.fixture
def in_request() -> Iterator[None]:
    entered = current_request.set(RequestLabels("r-1", "night\nshift", TRACEPARENT))
    yield
    current_request.reset(entered)


def test_a_json_line_outside_of_requests() -> None:
    told = json.loads(line("json", seconds=1.5))
    assert datetime.fromisoformat(told.pop("time")).utcoffset() is not None
    assert told == {"level": "WARNING", "logger": "a.b", "message": "loaded käse", "seconds": 1.5}


@pytest.mark.usefixtures("in_request")
def test_a_json_line_of_a_request() -> None:
    told = json.loads(line("json"))
    assert (told["request_id"], told["client_job"]) == ("r-1", "night\nshift")
    assert told["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_trace_is_one_line_of_json() -> None:
    try:
        raise KeyError("x")
    except KeyError as error:
        text = line("json", exc_info=(KeyError, error, error.__traceback__))
    assert "\n" not in text
    assert "Traceback" in json.loads(text)["exc_info"]


@pytest.mark.usefixtures("in_request")
def test_a_text_line_of_a_request_stays_one_line() -> None:
    text = line("text")
    assert "\n" not in text
    assert "WARNING a.b: loaded käse {" in text
    assert '"request_id": "r-1", "client_job": "night\\nshift"' in text


def test_a_text_line_outside_of_requests_has_nothing_behind_it() -> None:
    assert line("text").endswith("loaded käse")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    root.handlers, root.level = handlers, level
    logging.captureWarnings(False)


def test_another_call_takes_the_place_of_the_first(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "text")
    configure_logging("error", "json")
    logging.getLogger("a").warning("quiet")
    logging.getLogger("a").error("loud")
    (only,) = capsys.readouterr().err.splitlines()
    assert json.loads(only)["message"] == "loud"


def test_a_workers_line_tells_whose_input_failed(make_service: Callable[..., Any]) -> None:
    def fail(_: Any) -> None:
        raise ZeroDivisionError

    lines: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.addFilter(add_request)
    handler.emit = lines.append  # type: ignore[method-assign]
    logger = logging.getLogger("reward_service.core.replica")
    logger.addHandler(handler)
    try:
        body = {"items": [{"response": "Yes."}], "models": ["completeness"]}
        reply = make_service(fail).score(body, headers={"X-Request-Id": "r-7", "X-Client-Job": "night"})
    finally:
        logger.removeHandler(handler)
    assert reply.status_code == 500
    (told,) = [vars(line) for line in lines if "failed on an input" in line.getMessage()]
    assert (told["request_id"], told["client_job"]) == ("r-7", "night")
    assert told["exc_info"][0] is ZeroDivisionError
