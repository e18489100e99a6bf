"""Log lines: plain text or JSON, each with the request that it belongs to. They hold no keys, texts or scores."""

import json
import logging
import sys
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

from reward_service.request_labels import current_request

LogFormat = Literal["text", "json"]

TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s%(of_request)s"
JSON_FIELDS = ("levelname", "name", "message")
JSON_NAMES = {"levelname": "level", "name": "logger"}

_NOT_IN_JSON = [*vars(logging.makeLogRecord({})), "message", "asctime", "of_request", "taskName"]


def configure_logging(level: str, log_format: LogFormat) -> None:
    """Log to standard error; called again, it takes the place of what it did before.

    Args:
        level: Least level that is logged.
        log_format: Text for people, or one JSON object a line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(add_request)
    handler.setFormatter(make_formatter(log_format))
    root = logging.getLogger()
    root.setLevel(level.upper())
    root.handlers = [handler]
    logging.captureWarnings(log_format == "json")  # They would be lines that are not JSON.


def make_formatter(log_format: LogFormat) -> logging.Formatter:
    """The formatter of one format; it needs `add_request` as a filter."""
    if log_format == "text":
        return logging.Formatter(TEXT_FORMAT)
    return JsonFormatter(
        list(JSON_FIELDS),
        rename_fields=JSON_NAMES,
        timestamp="time",
        reserved_attrs=_NOT_IN_JSON,
        json_ensure_ascii=False,
    )


def add_request(record: logging.LogRecord) -> bool:
    """Put into a record which request it belongs to."""
    labels = current_request.get()
    told: dict[str, str] = {}
    if labels is not None:
        told = {"request_id": labels.request_id, "client_job": labels.client_job, "trace_id": labels.trace_id}
        told = {name: value for name, value in told.items() if value}
    vars(record).update(told)
    # Quoted, as a job's name is anybody's invention and might begin a new line.
    record.of_request = f" {json.dumps(told)}" if told else ""
    return True
