"""PPO with sampling, scoring and training side by side: the figures of one after the other, and an exact resume."""

import json
import threading

import httpx
import pytest
import torch

from rl_client.api import ApiConnectionError
from rl_client.rollout.score_stream import ScoreStream
from rl_client.training.checkpoint import list_checkpoints
from rl_client.training.time_table import BESIDE, PHASES
from tests.rl_client.killed import KilledError, die
from tests.rl_client.recipes.whole_runs import assert_same_run

TIMEOUT_S = 60.0
STALE = {"pipeline": {"staleness": 1}, "ppo__steps": 4}


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_pipelined_run_is_the_serial_run(run, train_config, read_metrics, service, staleness):
    serial = train_config(
        "serial", ppo__steps=4, pipeline={"concurrent_requests": 0, "staleness": staleness, "send_share": 1.0}
    )
    assert run(serial)
    requests = len(service.requests)
    pipelined = train_config(
        "b", ppo__steps=4, pipeline={"concurrent_requests": 3, "staleness": staleness, "send_share": 0.1}
    )
    assert run(pipelined)
    assert len(service.requests) > 2 * requests
    assert_same_run(pipelined, serial, read_metrics)


def test_requests_leave_while_others_are_still_sampled(run, train_config, service, monkeypatch):
    """The first request of each step is answered before the last token is sampled: sampling waits for it here."""
    answered = threading.Event()
    generated = []

    def answer(request: httpx.Request) -> httpx.Response:
        reply = service.transport.handle_request(request)
        if request.url.path == "/v1/score":
            answered.set()
        return reply

    send = ScoreStream.send

    def send_and_wait(stream, part):
        send(stream, part)
        assert answered.wait(TIMEOUT_S)
        generated.append(part.rows)

    monkeypatch.setattr(ScoreStream, "send", send_and_wait)
    config = train_config("a", ppo__steps=1, pipeline={"send_share": 0.1})
    assert run(config, transport=httpx.MockTransport(answer))
    assert len(generated) > 1
    assert sorted(row for rows in generated for row in rows) == list(range(8))


@pytest.mark.parametrize("step", [1, 3])
def test_a_stale_run_that_was_killed_resumes_bit_for_bit(run, train_config, at_step, read_metrics, step):
    unbroken = train_config("unbroken", **STALE)
    run(unbroken)
    killed = train_config("killed", **STALE)
    at_step(step, die)
    with pytest.raises(KilledError):
        run(killed)
    torch.manual_seed(99)
    assert run(killed, resume=True)
    assert_same_run(killed, unbroken, read_metrics)


@pytest.mark.slow
def test_a_stale_run_of_an_adapter_resumes_bit_for_bit(run, train_config, at_step, read_metrics):
    """The copy that samples has an adapter of its own; the reference, meanwhile, is the policy's switched off."""
    settings = STALE | {"ppo__steps": 3, "lora": {"rank": 2}}
    unbroken = train_config("unbroken", **settings)
    run(unbroken)
    killed = train_config("killed", **settings)
    at_step(2, die)
    with pytest.raises(KilledError):
        run(killed)
    assert run(killed, resume=True)
    assert_same_run(killed, unbroken, read_metrics)


@pytest.mark.slow
def test_a_stale_run_can_be_prolonged(run, train_config, read_metrics):
    plain = {**STALE, "ppo__schedule": "constant", "ppo__warmup_ratio": 0.0}
    longer = train_config("longer", **plain)
    run(longer)
    run(train_config("a", **(plain | {"ppo__steps": 2})))
    prolonged = train_config("a", **plain)
    assert run(prolonged, resume=True)
    assert_same_run(prolonged, longer, read_metrics)


def test_a_service_that_goes_away_stops_a_stale_run_where_it_can_go_on(
    run, train_config, service, at_step, read_metrics
):
    unbroken = train_config("unbroken", **STALE)
    run(unbroken)
    config = train_config("a", **STALE)
    at_step(2, lambda: service.fail_next(*[httpx.ConnectError("gone")] * 50))
    with pytest.raises(ApiConnectionError, match="gone"):
        run(config)
    service._failures.clear()
    assert [path.name for path in list_checkpoints(config.output / "checkpoints")][-1] in (
        "step-00000002",
        "step-00000003",  # the scores of step 3 may have been there already
    )
    assert run(config, resume=True)
    assert_same_run(config, unbroken, read_metrics)


def test_the_first_two_rollouts_of_a_stale_run_come_from_the_same_policy(run, train_config, read_metrics):
    """So KL to the reference is 0 in both; a run that is not stale has moved by its second step."""
    same = {"ppo__value_warmup_steps": 0, "ppo__schedule": "constant", "ppo__warmup_ratio": 0.0}
    for name, staleness in (("fresh", 0), ("stale", 1)):
        run(train_config(name, ppo__steps=3, pipeline={"staleness": staleness}, **same))
    fresh, stale = (read_metrics(train_config(name).output) for name in ("fresh", "stale"))
    assert [line["kl"] for line in stale[:2]] == pytest.approx([0.0, 0.0], abs=1e-5)
    assert abs(fresh[1]["kl"]) > 1e-3
    assert abs(stale[2]["kl"]) > 1e-3
    assert stale[0] == fresh[0]
    assert stale[1]["ratio_max"] > 1.01


def test_the_table_of_times_is_printed_and_its_figures_are_logged(run, train_config, capsys):
    config = train_config("a", ppo__steps=3)
    run(config)
    printed = capsys.readouterr().err
    for label in (*PHASES.values(), *BESIDE.values(), "the rest"):
        assert label in printed
    line = json.loads((config.output / "metrics.jsonl").read_text().splitlines()[-1])
    phases = sum(line[name] for name in PHASES)
    assert 0 < phases <= line["step_s"]
    assert line["update_s"] == pytest.approx(sum(line[f"update_{part}_s"] for part in ("policy", "value", "optimizer")))
    assert line["generate_s"] <= line["generate_wait_s"]
