"""The tiny models of tests/rl_client, for invariants that need models."""

import importlib.util
from pathlib import Path

import pytest

_path = Path(__file__).parents[1] / "rl_client" / "conftest.py"
_spec = importlib.util.spec_from_file_location("rl_client_fixtures", _path)
assert _spec is not None
assert _spec.loader is not None
_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)


@pytest.fixture(scope="session", params=["t5", "llama", "llama_lora"])
def family(request) -> str:
    """An encoder-decoder, a decoder, and one with an adapter: the invariants hold for all."""
    return request.param


tokenizer = _fixtures.tokenizer
model_config = _fixtures.model_config
init_dir = _fixtures.init_dir
policy_dir = _fixtures.policy_dir
network_settings = _fixtures.network_settings
policy = _fixtures.policy
value = _fixtures.value
prompts = _fixtures.prompts
write_jsonl = _fixtures.write_jsonl
prompts_file = _fixtures.prompts_file
