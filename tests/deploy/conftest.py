"""Programs that check what is deployed; a test whose program is not installed is skipped."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
DEBIAN_PACKAGES = {"promtool": "prometheus", "amtool": "prometheus-alertmanager"}
TIMEOUT_S = 180.0


@pytest.fixture
def services() -> dict[str, Any]:
    """The services of compose.yaml."""
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return found


@pytest.fixture
def run_checker() -> Callable[..., str]:
    """Runs a program in `deploy/`, fails with what it says, and returns it."""

    def run(program: str, *arguments: str) -> str:
        beside_python = Path(sys.executable).with_name(program)
        path = str(beside_python) if beside_python.exists() else shutil.which(program)
        if path is None:
            pytest.skip(f"{program} is not installed: apt-get install {DEBIAN_PACKAGES.get(program, program)}")
        ended = subprocess.run(
            [path, *arguments], cwd=DEPLOY, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        said = ended.stdout + ended.stderr
        assert ended.returncode == 0, said
        return said

    return run
