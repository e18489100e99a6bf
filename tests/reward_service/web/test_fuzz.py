"""Requests made from the OpenAPI document by schemathesis, against a real process.

No server error and nothing undocumented. For a longer run, `docs/service.md` has the command.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from reward_service.keys import hash_key

SECRET = "key-of-the-test"
EXAMPLES = 30
"""For each operation; with those of the schemas' bounds this makes about 1,000 requests."""

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)

HOOKS = '''
"""A `timeout_s` that nobody can keep is answered with 504, which is right; the fuzzer takes each 5xx for a fault."""
import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    body = case.body
    if isinstance(body, dict) and isinstance(body.get("timeout_s"), float | int) and 0 < body["timeout_s"] < 30:
        case.body = {**body, "timeout_s": 30.0}
'''


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_server_error_and_nothing_undocumented(
    start_service: Callable[..., Any], tiny_store: Path, tmp_path: Path
) -> None:
    pytest.importorskip("schemathesis")
    keys = tmp_path / "keys.yaml"
    keys.write_text(yaml.safe_dump({"keys": [{"id": "a", "role": "admin", "sha256": hash_key(SECRET)}]}))
    models = [{"name": name, "runtime": "onnxruntime"} for name in ("relevance", "factuality", "completeness")]
    compat = {"weights": {"factuality": 1.0}, "empty_score": 0.5}
    service = start_service(store=str(tiny_store), models=models, compat=compat, auth={"keys": str(keys)})
    (tmp_path / "hooks.py").write_text(HOOKS)
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{service.url}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {SECRET}", "--max-examples", str(EXAMPLES), "--seed", "1"]
    command += ["--phases", "coverage,fuzzing", "--checks", ",".join(CHECKS), "--continue-on-failure", "--no-color"]
    home = str(tmp_path)
    environment = {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": home, "PATH": os.defpath, "HOME": home}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert httpx.get(f"{service.url}/readyz", timeout=60).status_code == 200
    assert not any("Traceback" in line for line in service.log)
