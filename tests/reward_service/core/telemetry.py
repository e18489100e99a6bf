"""What a source tells of its work, kept."""

from reward_service.core.telemetry import BatchReport


class Telemetry:
    def __init__(self) -> None:
        self.reports: list[BatchReport] = []
        self.encodings = 0

    def batch_done(self, report: BatchReport) -> None:
        self.reports.append(report)

    def encoded(self, model: str, tokenize_s: float, truncated: int) -> None:
        self.encodings += 1
