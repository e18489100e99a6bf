"""`rl-client generate` against the real service in a process of its own; rewards told by hand from the texts."""

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rl_client.rollout.prompts import PromptRecord
from tests.rl_client.tiny_models import make_policy, make_tokenizer

SCRIPT = Path(__file__).with_name("scripted_service.py")
DEADLINE_S = 240


@pytest.fixture
def service_url():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(SCRIPT), str(port)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait(DEADLINE_S)


@pytest.mark.parametrize("family", ["t5", pytest.param("llama", marks=pytest.mark.slow)])
def test_the_command_line_keeps_the_best_after_each_segment(family, service_url, tmp_path):
    make_policy(family).save(tmp_path / "policy", make_tokenizer(family))
    records = [PromptRecord(id=f"q{i}", prompt="red blue", fields={"question": "red"}) for i in range(3)]
    (tmp_path / "prompts.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in records))
    settings = {
        "output": str(tmp_path / "out"),
        "policy": str(tmp_path / "policy"),
        "prompts": str(tmp_path / "prompts.jsonl"),
        "threads": 1,
        "device": "cpu",
        "select": "segment",
        "granularity": "sub_sentence",
        "max_segment_tokens": 4,
        "generation": {"max_new_tokens": 12, "samples_per_prompt": 3},
        "service": {"url": service_url, "retry_for_s": DEADLINE_S},
        "rewards": [{"model": "length", "weight": 0.5}, {"model": "relevance"}],
    }
    (tmp_path / "generate.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "rl_client.cli", "generate", "--config", str(tmp_path / "generate.yaml")]
    subprocess.run(command, check=True, timeout=DEADLINE_S, env={**os.environ, "OMP_NUM_THREADS": "1"})
    lines = [json.loads(line) for line in (tmp_path / "out" / "responses.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    assert max(len(line["choices"]) for line in lines) > 1
    for line in lines:
        for choice in line["choices"]:
            assert choice["rewards"][choice["chosen"]] == max(choice["rewards"])
        text = line["response"]
        length = 0.5 * (2 + len(text.encode()))
        # One sentence, if any: no word of the tiny vocabulary begins with a capital.
        relevance = 1 / (1 + math.exp(-(ord(text[0]) - 29) / 50)) if text else 0.0
        assert line["reward"] == pytest.approx(length + relevance, abs=0.02)
