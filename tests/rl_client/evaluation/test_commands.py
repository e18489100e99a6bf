import json

import pytest
import yaml
from typer.testing import CliRunner

from rl_client import cli


@pytest.fixture
def invoke():
    return lambda *arguments: CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def responses(write_jsonl):
    def make(name, text):
        return write_jsonl(name, [{"id": f"q{n}", "response": f"{text} {n}", "kind": "k"} for n in range(3)])

    return make


def test_a_policy_is_sampled_and_judged(invoke, tmp_path, policy_dir, prompts_file):
    settings = {
        "output": str(tmp_path / "evaluation"),
        "policy": str(policy_dir),
        "prompts": str(prompts_file),
        "threads": 1,
        "device": "cpu",
        "generation": {"max_new_tokens": 4},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    done = invoke("evaluate", "--config", tmp_path / "c.yaml", "--examples", 2)
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "evaluation" / "figures.json").read_text())
    assert (told["prompts"], told["responses"]) == (10, 10)
    assert {"length_words", "length_tokens"} <= set(told["figures"])
    assert "length_words" in done.stdout
    names = {path.name for path in (tmp_path / "evaluation").iterdir()}
    assert names == {"responses.jsonl", "metrics.json", "figures.json", "report.html"}


def test_a_file_is_judged_and_two_are_compared(invoke, responses, tmp_path):
    a, b = responses("a.jsonl", "one"), responses("b.jsonl", "one two")
    done = invoke("evaluate", "--data", a, "--out", tmp_path / "e")
    assert done.exit_code == 0, done.output
    assert "length_words             2 [2, 2]" in done.stdout
    done = invoke("compare", a, f"other={b}", "--slice", "kind", "--out", tmp_path / "c")
    assert done.exit_code == 0, done.output
    assert "a less other" in done.stdout
    assert "length_words           -1 [-1, -1]  0/0/3" in done.stdout
    told = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert told["pairs"][0]["figures"]["length_words"]["by"]["kind"][0]["slice"] == "k"


@pytest.mark.parametrize("arguments", [[], ["--data", "a.jsonl"], ["--data", "a.jsonl", "--config", "c.yaml"]])
def test_wrong_use_exits_2(invoke, arguments):
    assert invoke("evaluate", *arguments).exit_code == 2


def test_faults_are_told_without_a_trace_and_exit_1(invoke, responses, tmp_path):
    done = invoke("compare", responses("a.jsonl", "x"), "absent.jsonl", "--out", tmp_path)
    assert done.exit_code == 1
    assert "DataError: absent.jsonl does not exist" in done.stderr
    assert "Traceback" not in done.output
