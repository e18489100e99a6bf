"""What overlapping saves: PPO steps with scores asked for after sampling, during it, and with the next rollout beside.

The real recipe trains a small T5 (random weights; one token of 64 ends a response, so that lengths vary) against a
service in a process of its own that takes a fixed time for each response, one response after the other, and no CPU: as
long for a whole step as sampling it takes, or no time at all.

    python tests/benchmarks/bench_pipeline.py [--steps 3] [--threads 1] [--epochs 1] [--d-model 256] [--new-tokens 64]

Where sampling is the larger part of a step, as with long responses, overlapping alone hides most of the scoring; where
reading and updates are, the next rollout must be sampled beside them (staleness 1).
"""

import argparse
import json
import multiprocessing
import random
import statistics
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from word_tokenizer import save_word_tokenizer

VOCABULARY = 64
PAD, EOS, UNK = 0, 1, 2
SERIAL = {"concurrent_requests": 0, "send_share": 1.0}


def write_files(folder: Path, d_model: int) -> None:
    """A T5 with random weights, a tokenizer of made-up words, and prompts of 40 to 80 tokens."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=d_model,
        d_kv=d_model // 4,
        d_ff=4 * d_model,
        num_heads=4,
        num_layers=3,
        num_decoder_layers=3,
        decoder_start_token_id=PAD,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    save_word_tokenizer(folder, VOCABULARY)
    rng = random.Random(0)
    lines = [
        {"id": f"p{i}", "prompt": " ".join(f"w{rng.randrange(VOCABULARY - 3)}" for _ in range(rng.randint(40, 80)))}
        for i in range(64)
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def serve(port_of: "multiprocessing.Queue[int]", seconds_per_item: "multiprocessing.sharedctypes.Synchronized") -> None:
    """Answer as the fake service does, and take the time a slow one would."""
    import httpx

    from rl_client.api.testing import FakeModel, FakeRewardService

    service = FakeRewardService([FakeModel("length", score=lambda text: -0.01 * len(text.split()))])
    one_at_a_time = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            request = httpx.Request(self.command, f"http://x{self.path}", headers=dict(self.headers), content=body)
            reply = service.transport.handle_request(request)
            if self.path == "/v1/score":
                with one_at_a_time:
                    time.sleep(seconds_per_item.value * len(json.loads(body)["items"]))
            content = reply.read()
            self.send_response(reply.status_code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port_of.put(server.server_port)
    server.serve_forever()


def train(name: str, folder: Path, url: str, wanted: argparse.Namespace, pipeline: dict) -> dict[str, float]:
    """Median timings of a run's steps, the first left out."""
    from rl_client.recipes.train_ppo import train_ppo
    from rl_client.training.config import TrainConfig

    rows = wanted.prompts * wanted.samples
    config = TrainConfig.model_validate(
        {
            "output": folder / name,
            "threads": wanted.threads,
            "policy": folder,
            "prompts": folder / "prompts.jsonl",
            "service": {"url": url},
            "rewards": [{"model": "length"}],
            "generation": {"max_new_tokens": wanted.new_tokens, "samples_per_prompt": wanted.samples},
            "ppo": {
                "steps": wanted.steps + 1, "prompts_per_step": wanted.prompts, "epochs": wanted.epochs,
                "minibatch_size": rows // 2, "learning_rate": 1e-6, "value_learning_rate": 1e-6,
            },
            "checkpoint": {"every_steps": 1000},
            "pipeline": pipeline,
        }
    )  # fmt: skip
    train_ppo(config, resume=False)
    lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()][1:]
    return {key: statistics.median(line[key] for line in lines) for key in lines[0] if key.endswith("_s")}


def main() -> None:
    """Calibrate the service, run each way of going about it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {
        "steps": 3, "threads": 1, "epochs": 1, "prompts": 6, "samples": 4, "new-tokens": 64, "d-model": 256,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    wanted = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ports, seconds_per_item = context.Queue(), context.Value("d", 0.0)
    server = context.Process(target=serve, args=(ports, seconds_per_item), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ports.get(timeout=60)}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, wanted.d_model)
        found = {"fast service, overlapped": train("fast", folder, url, wanted, {})}
        generate_s = found["fast service, overlapped"]["generate_s"]
        seconds_per_item.value = generate_s / (wanted.prompts * wanted.samples)
        found["slow service, one after the other"] = train("serial", folder, url, wanted, SERIAL)
        found["slow service, overlapped"] = train("pipelined", folder, url, wanted, {})
        found["slow service, overlapped, staleness 1"] = train("stale", folder, url, wanted, {"staleness": 1})
    server.terminate()
    names = ("generate_wait_s", "forward_s", "score_wait_s", "update_s", "step_s")
    print(
        f"{wanted.prompts} prompts x {wanted.samples} samples, at most {wanted.new_tokens} tokens, {wanted.epochs} "
        f"epochs, {wanted.threads} threads; the slow service takes {generate_s:.2f} s a step; "
        f"medians of {wanted.steps} steps\n"
    )
    print("| | " + " | ".join(names) + " | of serial | waiting |\n" + "|---" * (len(names) + 3) + "|")
    serial_s = found["slow service, one after the other"]["step_s"]
    for label, timings in found.items():
        # Nothing overlaps there: the scores are asked for within what is counted as sampling.
        waiting = timings["score_wait_s"] / timings["step_s"]
        cells = " | ".join(f"{timings[name]:.2f}" for name in names)
        print(f"| {label} | {cells} | {timings['step_s'] / serial_s:.2f} | {waiting:.1%} |")


if __name__ == "__main__":
    main()
