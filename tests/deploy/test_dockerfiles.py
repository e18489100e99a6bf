"""No image is built here: the files are linted, and what they name is looked up."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from reward_service.config import ServiceSettings, load_settings

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "deploy").glob("Dockerfile.*"))


def test_there_is_one_for_each_kind_of_machine() -> None:
    assert [path.name for path in DOCKERFILES] == ["Dockerfile.cpu", "Dockerfile.cuda"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(run_checker: Callable[..., str], path: Path) -> None:
    assert run_checker("hadolint", str(path)) == ""


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_is_there_and_sent_to_the_build(path: Path) -> None:
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", path.read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert "constraints.txt" in sources
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(Path(source).is_relative_to(allowed) for allowed in sent), source


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_image_has_the_extras_that_settings_ask_for(path: Path) -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    text = path.read_text()
    (extras,) = re.findall(r"^ARG EXTRAS=(\S+)$", text, re.MULTILINE)
    assert set(extras.split(",")) <= known.keys()
    assert {"annotation", "otel", "postgres", "text-rewards"} < set(extras.split(","))
    stage = text[: text.rindex("\nFROM ")]
    assert stage.index("ARG EXTRAS=") < stage.index('".[$EXTRAS]"')


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_image_runs_as_nobody_special_and_asks_readyz(path: Path) -> None:
    text = path.read_text()
    last = text[text.rindex("\nFROM ") :]
    assert re.search(r"^USER (?!0\b|root)\d+$", last, re.MULTILINE)
    assert last.index("USER ") < last.index("ENTRYPOINT")
    assert re.search(r"^HEALTHCHECK .*\n.*http://127\.0\.0\.1:8000/readyz", last, re.MULTILINE)
    assert text.count("pip install") == text.count("--constraint constraints.txt")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_settings_in_the_image_fit_it(path: Path) -> None:
    (source,) = re.findall(r"^COPY (\S+) /etc/reward-service/service.yaml$", path.read_text(), re.MULTILINE)
    settings = load_settings(ROOT / source, ServiceSettings)
    assert (settings.host, settings.port, str(settings.store)) == ("0.0.0.0", 8000, "/models")
