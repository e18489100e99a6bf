"""The guide's commands run as they stand, in order, in one folder."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from reward_proto import Granularity, ModelKind
from rl_client import cli
from rl_client.api.testing import FakeModel, FakeRewardService

PAGE = Path(__file__).parents[2] / "docs" / "offline-evaluation.md"
COMMAND = re.compile(r"```console\n(.*?)```(?:\n\n[^\n`]+:\n\n```text\n(.*?)```)?", re.DOTALL)
ROWS = 200


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the guide's reader is."""
    words = ("It", "is", "an", "album.", "Bloom", "sold", "well;")
    with (tmp_path / "answers.jsonl").open("w") as file:
        for n in range(ROWS):
            response = " ".join(words[(n * 3 + k * k) % len(words)] for k in range(1 + n % 9))
            file.write(json.dumps({"id": f"q{n}", "prompt": f"p{n}", "response": response}) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> FakeRewardService:
    """Answers whatever goes to the network."""
    models = [
        FakeModel(
            name,
            score=lambda text, word=word: 1.0 if word in text else 0.5,
            granularity=Granularity.SENTENCE,
            kind=ModelKind.TOKEN_CLASSIFICATION,
        )
        for name, word in (("relevance", "album"), ("factuality", "Bloom"))
    ]
    fake = FakeRewardService(models)
    monkeypatch.setattr(
        httpx.HTTPTransport, "handle_request", lambda _, request: fake.transport.handle_request(request)
    )
    return fake


def test_every_command_does_what_the_page_says(
    folder: Path, service: FakeRewardService, run_examples: Callable[[str], None]
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    found = COMMAND.findall(text)
    assert len(found) == text.count("```console")
    for commands, told in found:
        for line in commands.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line.removeprefix("$ "))
            assert program == "rl-client"
            done = CliRunner().invoke(cli.app, arguments)
            assert done.exit_code == 0, f"{line}\n{done.output}"
            assert told in done.stdout
    run_examples(PAGE.name)
