"""One line a minute, and no dropped score untold."""

import logging

import pytest

from reward_service.ledger import drop_log
from reward_service.ledger.drop_log import DropLog


def test_the_first_is_told_at_once_and_the_rest_together(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(drop_log.time, "monotonic", lambda: now_s[0])
    log = DropLog("here")
    with caplog.at_level(logging.ERROR):
        for scores, passed_s in ((3, 0.0), (4, 30.0), (5, 29.9), (6, 0.2), (7, 1.0)):
            now_s[0] += passed_s
            log.add(scores)
        log.tell()
        log.tell()
    told = ["3 scores were dropped, not recorded", "15 scores were dropped, not recorded"]
    assert [record.message for record in caplog.records] == [f"the ledger in here: {line}" for line in told] + [
        "the ledger in here: 7 scores were dropped, not recorded"
    ]
