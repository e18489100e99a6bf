import json

import httpx
import pytest
from typer.testing import CliRunner

from rl_client import cli
from rl_client.offline.scored_file import read_scored


@pytest.fixture
def invoke(service, monkeypatch):
    """Runs the command; the fake service answers whatever goes to the network."""
    monkeypatch.setattr(
        httpx.HTTPTransport, "handle_request", lambda _, request: service.transport.handle_request(request)
    )
    return lambda *arguments: CliRunner().invoke(cli.app, ["score", *map(str, arguments)])


def test_options_reach_the_service_and_the_output(invoke, service, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "k")
    line = {"key": "a", "q": "p", "text": "good one", "ctx": "c", "kind": "web"}
    (tmp_path / "d.jsonl").write_text(json.dumps(line) + "\n")
    columns = ["--id-column", "key", "--prompt-column", "q", "--response-column", "text", "--field", "context=ctx"]
    result = invoke(
        "--data", tmp_path / "d.jsonl", "--out", tmp_path / "s.parquet", "--models", "length,good@latest",
        *columns, "--keep", "kind", "--client-job", "mine", "--api-key-env", "SECRET", "--json", tmp_path / "s.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "1 rows. Scores: 2 computed" in result.output
    (record,) = read_scored(tmp_path / "s.parquet")
    assert (record["id"], record["prompt"], record["response"]) == ("a", "p", "good one")
    assert (record["fields"], record["kept"]) == ({"context": "c"}, {"kind": "web"})
    assert list(record["scores"]) == ["length", "good"]
    assert service.headers[-1]["x-client-job"] == "mine"
    assert service.headers[-1]["authorization"] == "Bearer k"
    assert json.loads((tmp_path / "s.json").read_text()) == {
        "finished": True,
        "rows": 1,
        "models": {
            "length": {"version": "bbbbbbbbbbbb", "runtime": "fake-fp32"},
            "good": {"version": "aaaaaaaaaaaa", "runtime": "fake-fp32"},
        },
        "scores": {"computed": 2, "cached": 0, "reused": 0, "failed": 0},
    }


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--data", "absent.jsonl"], "DataError: absent.jsonl does not exist"),
        (["--url", "ftp://x"], "ValueError: base_url must be"),
        (["--models", "nobody"], "UnknownModelError"),
        (["--api-key-env", "NOT_SET"], "ValueError: api_key_env names NOT_SET, which is not set"),
    ],
)
def test_faults_are_told_without_a_trace_and_exit_1(invoke, write_rows, tmp_path, options, told):
    result = invoke("--data", write_rows(2), "--out", tmp_path / "s.parquet", *options)
    assert result.exit_code == 1
    assert told in result.stderr
    assert "Traceback" not in result.output


def test_a_run_told_to_stop_exits_75(invoke, write_rows, tmp_path, monkeypatch):
    from rl_client.offline import bulk

    monkeypatch.setattr(bulk.StopSignal, "received", True, raising=False)
    monkeypatch.setattr(bulk.StopSignal, "__init__", lambda self: setattr(self, "_before", {}))
    result = invoke("--data", write_rows(50), "--out", tmp_path / "s.parquet", "--chunk-rows", 1)
    assert result.exit_code == 75
    assert "unfinished: run the same command to go on" in result.output
    monkeypatch.undo()
