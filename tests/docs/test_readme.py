"""The README and the docs point at things that exist."""

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reward_service.cli import app as reward_service
from rl_client.cli import app as rl_client

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "proto" / "README.md", *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page):
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_the_readme_names_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert [name for name in extras if f"`{name}`" not in (ROOT / "README.md").read_text(encoding="utf-8")] == []


def anchors(page):
    """What GitHub calls the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", one) for one in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_linked_headings_are_there(page):
    links = re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8"))
    missing = [(path, name) for path, name in links if name not in anchors(page.parent / path if path else page)]
    assert missing == []


def test_the_readme_says_what_lives_in_every_package():
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Where things are")[2]
    named = {
        name for cell in re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE) for name in re.findall(r"[\w.]+", cell)
    }
    for side in ("reward_service", "rl_client"):
        packages = {path.parent.name for path in (ROOT / side).glob("*/__init__.py")}
        assert packages - named == set(), side


@pytest.mark.parametrize(
    ("program", "app"), [("reward-service", reward_service), ("rl-client", rl_client)], ids=["service", "client"]
)
def test_every_named_command_exists(program, app):
    named = set(re.findall(rf"{program} +([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert named
    for command in named:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command


def test_the_readme_names_make_targets_that_exist():
    targets = set(
        re.findall(r"(?:^ {4}|`)make ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= targets <= rules
