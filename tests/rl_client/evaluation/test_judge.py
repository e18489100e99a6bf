import json

import pytest

from rl_client.errors import DataError
from rl_client.evaluation.judge import JudgeSettings, judge_responses, judge_several, parse_system


@pytest.fixture
def write(write_jsonl):
    def make(name, values):
        lines = []
        for n, value in enumerate(values):
            score = {"model": "good", "version": "v", "runtime": "r", "granularity": "sequence", "segments": []}
            lines.append(
                {"id": f"q{n}", "response": f"{name} {n}", "scores": {"good": score | {"sequence_score": value}}}
            )
        return write_jsonl(f"{name}.jsonl", lines)

    return make


def test_a_file_is_judged_into_json_and_a_page(write, tmp_path):
    references = tmp_path / "refs.jsonl"
    references.write_text("".join(json.dumps({"id": f"q{n}", "reference": f"a {n}"}) + "\n" for n in range(3)))
    settings = JudgeSettings(tmp_path / "out", references=references, average_max=("good",))
    told = judge_responses(write("a", [0.5, 1.0, 0.0]), settings)
    assert json.loads((tmp_path / "out" / "figures.json").read_text()) == told
    assert told["figures"]["reward/good"]["mean"] == pytest.approx(0.5)
    assert told["figures"]["average_max/good"]["mean"] == pytest.approx(0.5)
    assert told["figures"]["rouge_lsum"]["mean"] == pytest.approx(1.0)
    assert "Evaluation of a" in (tmp_path / "out" / "report.html").read_text()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"figures.json", "report.html"}


def test_files_are_compared_into_json_and_a_page(write, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "kl": 0.5, "reward/good": 1.0}\n')
    named = [("a", write("a", [0.0, 0.2])), ("b", write("b", [1.0, 0.9]))]
    told = judge_several(named, JudgeSettings(tmp_path / "out"), runs=[("ppo", tmp_path / "run")], common=False)
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == told
    assert set(told["systems"]) == {"a", "b"}
    assert told["pareto_front"] == ["b"]
    assert told["pairs"][0]["figures"]["reward/good"]["difference"] == pytest.approx(-0.85)
    assert told["runs"]["ppo"]["good"]["peak"]["kl"] == 0.5
    assert "a against b" in (tmp_path / "out" / "report.html").read_text()


def test_one_file_is_nothing_to_compare(write, tmp_path):
    with pytest.raises(DataError, match="two files"):
        judge_several([("a", write("a", [0.0]))], JudgeSettings(tmp_path), runs=[], common=False)


def test_names_of_systems(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_system("runs/a.parquet")[0] == "a"
    assert parse_system("mine=runs/a.parquet") == ("mine", tmp_path.__class__("runs/a.parquet"))
    assert parse_system("runs/ppo/responses.jsonl")[0] == "ppo"
    assert parse_system("runs/ppo")[0] == "ppo"
    (tmp_path / "a=b.jsonl").touch()
    assert parse_system("a=b.jsonl")[0] == "a=b"
