"""What overlapping saves: PPO steps with scores asked for after sampling, during it, and with the next rollout beside.

The real recipe trains a small T5 (random weights; one token of 64 ends a response, so that lengths vary) against a
service in a process of its own that takes a fixed time for each response, one response after the other, and no CPU: as
long for a whole step as sampling it takes, or no time at all. The runs take turns; figures are medians over all.

    python tests/benchmarks/bench_pipeline.py [--rounds 2] [--steps 3] [--threads 1] [--epochs 1] [--d-model 256]
        [--new-tokens 64] [--vocabulary 64] [--batch-tokens 0] [--send-share 0.25]

The least that overlapping could take is the step whose scores cost nothing: of sampling G, scoring S = G and the rest
R it leaves (G + R) / (2 G + R) of the serial step. Where R is over 2 G, that is over 3/4, and only the next rollout
sampled beside the update (staleness 1) goes below. With `--vocabulary 4096` hardly a response ends before the limit:
scoring then overlaps if prompts are sampled a few at a time (`--batch-tokens`).
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

PAD, EOS, UNK = 0, 1, 2
SERIAL = {"concurrent_requests": 0, "send_share": 1.0}


def write_files(folder: Path, d_model: int, vocabulary: int = 64) -> None:
    """A T5 with random weights, a tokenizer of made-up words, and prompts of 40 to 80 tokens."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=vocabulary,
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
    save_word_tokenizer(folder, vocabulary)
    rng = random.Random(0)
    lines = [
        {"id": f"p{i}", "prompt": " ".join(f"w{rng.randrange(vocabulary - 3)}" for _ in range(rng.randint(40, 80)))}
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


def train(name: str, folder: Path, url: str, wanted: argparse.Namespace, pipeline: dict) -> list[dict[str, float]]:
    """Timings of a run's steps, the first left out."""
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
            "generation": {
                "max_new_tokens": wanted.new_tokens, "samples_per_prompt": wanted.samples,
                "batch_tokens": wanted.batch_tokens or None,
            },
            "ppo": {
                "steps": wanted.steps + 1, "prompts_per_step": wanted.prompts, "epochs": wanted.epochs,
                "minibatch_size": rows // 2, "learning_rate": 1e-6, "value_learning_rate": 1e-6,
            },
            "checkpoint": {"every_steps": 1000},
            "pipeline": pipeline,
        }
    )  # fmt: skip
    train_ppo(config, resume=False)
    return [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()][1:]


def take_turns(url: str, wanted: argparse.Namespace, seconds_per_item) -> dict[str, dict[str, float]]:
    """Median timings of each way of going about it."""
    shares = {"send_share": wanted.send_share}
    ways = {
        "scores cost nothing": shares,
        "one after the other": SERIAL,
        "overlapped": shares,
        "overlapped, staleness 1": {**shares, "staleness": 1},
    }
    lines: dict[str, list[dict[str, float]]] = {label: [] for label in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, wanted.d_model, wanted.vocabulary)
        for number in range(wanted.rounds):
            for label, pipeline in ways.items():
                slow = label != "scores cost nothing"
                free = [line["generate_s"] for line in lines["scores cost nothing"]] if slow else [0.0]
                seconds_per_item.value = statistics.median(free) / (wanted.prompts * wanted.samples)
                lines[label] += train(f"{number} {label}", folder, url, wanted, pipeline)
    return {
        label: {key: statistics.median(line[key] for line in taken) for key in taken[0] if key.endswith("_s")}
        for label, taken in lines.items()
    }


def main() -> None:
    """Start the service, take turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {
        "rounds": 2, "steps": 3, "threads": 1, "epochs": 1, "prompts": 6, "samples": 4, "new-tokens": 64,
        "d-model": 256, "vocabulary": 64, "batch-tokens": 0,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--send-share", type=float, default=0.25)
    wanted = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ports, seconds_per_item = context.Queue(), context.Value("d", 0.0)
    server = context.Process(target=serve, args=(ports, seconds_per_item), daemon=True)
    server.start()
    found = take_turns(f"http://127.0.0.1:{ports.get(timeout=60)}", wanted, seconds_per_item)
    server.terminate()
    free, serial = found["scores cost nothing"], found["one after the other"]
    names = ("generate_wait_s", "forward_s", "score_wait_s", "update_s", "step_s")
    print(f"{wanted}\n\na step's scores take {free['generate_s']:.2f} s\n")
    print("| | " + " | ".join(names) + " | of serial | of free | waiting |\n" + "|---" * (len(names) + 4) + "|")
    for label, timings in found.items():
        # Where nothing overlaps the scores are asked for within what is counted as sampling.
        cells = " | ".join(f"{timings[name]:.2f}" for name in names)
        ratios = (timings["step_s"] / serial["step_s"], timings["step_s"] / free["step_s"])
        waiting = timings["score_wait_s"] / timings["step_s"]
        print(f"| {label} | {cells} | {ratios[0]:.2f} | {ratios[1]:.2f} | {waiting:.1%} |")


if __name__ == "__main__":
    main()
