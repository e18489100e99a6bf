"""Time and memory of one PPO step, against the step of the code that was released with the paper.

Both sides train the same T5 (random weights, d_model 256, 4 + 4 layers, vocabulary 32,128) and a value model of the
same size on the same prompts, each in a process of its own, so that their peaks can be compared. The released code's
side is written here as its sources do it (github.com/allenai/FineGrainedRLHF): every prompt padded to the maximum and
encoded once for each sample, log-softmax over the whole vocabulary, logits of policy and reference kept, policy's and
value model's graphs alive together, dropout on. Its faults of another kind (whitening, masks, losses) cost no time and
are not copied. Both use the same versions of torch and transformers, hence the same attention kernels.

    python tests/benchmarks/bench_ppo_step.py [--rounds 1] [--threads 2] [--prompt-tokens 700] [--new-tokens 96]

With `--device cuda` the memory is the device's; both sides take a step to warm up first, and `--bf16` runs our
forward passes under autocast (the released code's ran in fp32).
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from word_tokenizer import save_word_tokenizer

SIDES = ("released", "ours")
VOCABULARY = 32_128
PAD, EOS = 0, 1
SAMPLING = {"temperature": 0.7, "top_k": 20}
CLIP, KL, GAMMA, GAE_LAMBDA, RATE = 0.2, 0.3, 1.0, 0.95, 1e-5


def write_files(folder: Path, wanted: argparse.Namespace) -> None:
    """A T5 with random weights, a tokenizer of made-up words, and prompts within a tenth of the wanted length."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY, d_model=wanted.width, d_kv=64, d_ff=4 * wanted.width, num_heads=wanted.width // 64,
        num_layers=wanted.layers, num_decoder_layers=wanted.layers,
        decoder_start_token_id=PAD, pad_token_id=PAD, eos_token_id=EOS,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    save_word_tokenizer(folder, VOCABULARY)
    rng = random.Random(0)
    lengths = [round(wanted.prompt_tokens * rng.uniform(0.9, 1.1)) for _ in range(wanted.prompts)]
    lines = [
        {"id": f"p{number}", "prompt": " ".join(f"w{rng.randrange(VOCABULARY - 3)}" for _ in range(length - 1))}
        for number, length in enumerate(lengths)
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def token_rewards(shape):
    """The same made-up rewards on both sides; scoring is no part of the comparison."""
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def step_of_ours(folder: Path, wanted: argparse.Namespace):
    """One step as `recipes/train_ppo.py` takes it; returns it as a function."""
    import torch

    from rl_client.rollout.generate import generate
    from rl_client.rollout.prompts import load_prompts
    from rl_client.rollout.stages import ScoredRollout
    from rl_client.training.config import TrainConfig
    from rl_client.training.experience import estimate, make_train_batch
    from rl_client.training.model_files import load_tokenizer
    from rl_client.training.ppo_state import build_state
    from rl_client.training.ppo_step import ppo_update

    rows = wanted.prompts * wanted.samples
    config = TrainConfig.model_validate(
        {
            "output": folder / "run",
            "policy": folder,
            "prompts": folder / "prompts.jsonl",
            "max_prompt_tokens": wanted.max_prompt_tokens,
            "service": {"url": "http://nobody"},
            "rewards": [{"model": "made-up"}],
            "gradient_checkpointing": wanted.gradient_checkpointing,
            "precision": "bf16" if wanted.bf16 else "fp32",
            "generation": {"max_new_tokens": wanted.new_tokens, "samples_per_prompt": wanted.samples, **SAMPLING},
            "ppo": {
                "steps": 1, "prompts_per_step": wanted.prompts, "epochs": wanted.epochs, "minibatch_size": rows,
                "microbatch_size": wanted.microbatch, "clip_range": CLIP, "kl_coefficient": KL, "gamma": GAMMA,
                "gae_lambda": GAE_LAMBDA, "learning_rate": RATE, "value_learning_rate": RATE, "whiten_rewards": True,
            },
        }
    )  # fmt: skip
    tokenizer = load_tokenizer(folder)
    state = build_state(config, torch.device(wanted.device), {})
    prompts = load_prompts(config, tokenizer)
    temperature = SAMPLING["temperature"]

    def step(laps) -> int:
        trainee = state.trainee
        with state.precision:
            rollout = generate(trainee.policy, tokenizer, prompts, config.generation, seed=1)
        laps("sampling")
        tokens = rollout.tokens.to(state.device)
        with state.precision:
            found = estimate(
                trainee.policy, state.reference, trainee.value, tokens,
                temperature=temperature, microbatch_size=wanted.microbatch,
            )  # fmt: skip
        laps("reading")
        mask = rollout.tokens.response_mask
        rewards = torch.where(mask, token_rewards(mask.shape), 0.0)
        scored = ScoredRollout(rollout, rewards, torch.zeros(rows, dtype=torch.bool), {}, {})
        batch, _ = make_train_batch(scored, tokens, found, config.ppo)
        ppo_update(trainee, batch, config.ppo, temperature=temperature, seed=2, precision=state.precision)
        laps("updates")
        return int(tokens.response_mask.sum())

    return step


def step_of_released(folder: Path, wanted: argparse.Namespace):
    """One step as `fgrlhf/ppo.py`, `policy.py` and `value.py` take it; returns it as a function."""
    import torch
    import torch.nn.functional as F
    from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    policy, reference, body = (
        T5ForConditionalGeneration.from_pretrained(folder).eval().to(wanted.device) for _ in range(3)
    )
    head = torch.nn.Linear(wanted.width, 1).to(wanted.device)
    optimizer = torch.optim.Adam([*policy.parameters(), *body.parameters(), *head.parameters()], lr=RATE, eps=1e-5)
    texts = [json.loads(line)["prompt"] for line in (folder / "prompts.jsonl").read_text().splitlines()]
    padded = tokenizer(texts, padding="max_length", max_length=wanted.max_prompt_tokens, return_tensors="pt")
    padded = padded.to(wanted.device)
    rows = wanted.prompts * wanted.samples

    def read_policy(model, batch) -> dict:
        logits = model(
            input_ids=batch["prompt_ids"],
            attention_mask=batch["prompt_mask"],
            decoder_input_ids=shift(batch["ids"]),
            decoder_attention_mask=batch["mask"],
        ).logits
        logits = logits / SAMPLING["temperature"]
        logprobs = F.log_softmax(logits, dim=-1)
        chosen = torch.gather(logprobs, 2, batch["ids"][:, :, None]).squeeze(2)
        entropy = torch.logsumexp(logits, dim=-1) - torch.sum(F.softmax(logits, dim=-1) * logits, dim=-1)
        return {"logits": logits, "logprobs": chosen * batch["mask"], "entropy": entropy * batch["mask"]}

    def read_values(batch):
        hidden = body(
            input_ids=batch["prompt_ids"],
            attention_mask=batch["prompt_mask"],
            decoder_input_ids=shift(batch["ids"]),
            decoder_attention_mask=batch["mask"],
            output_hidden_states=True,
        ).decoder_hidden_states[-1]
        return head(hidden).squeeze(-1) * batch["mask"]

    def shift(ids):
        return torch.cat([torch.full_like(ids[:, :1], PAD), ids[:, :-1]], dim=1)

    def parts(batch):
        for start in range(0, rows, wanted.microbatch):
            yield {name: value[start : start + wanted.microbatch] for name, value in batch.items()}

    @torch.no_grad()
    def rollout() -> dict:
        sequences = policy.generate(
            input_ids=padded["input_ids"], attention_mask=padded["attention_mask"], do_sample=True, top_p=1.0,
            num_return_sequences=wanted.samples, max_new_tokens=wanted.new_tokens, **SAMPLING,
        )[:, 1:]  # fmt: skip
        ids = F.pad(sequences, (0, wanted.new_tokens - sequences.shape[1]), value=PAD)
        return {
            "prompt_ids": padded["input_ids"].repeat_interleave(wanted.samples, dim=0),
            "prompt_mask": padded["attention_mask"].repeat_interleave(wanted.samples, dim=0),
            "ids": ids,
            "mask": (ids != PAD).long(),
        }

    @torch.no_grad()
    def read(batch: dict) -> None:
        found = [(read_policy(policy, part), read_policy(reference, part), read_values(part)) for part in parts(batch)]
        for name in ("logits", "logprobs", "entropy"):
            batch[name] = torch.cat([one[name] for one, _, _ in found])
            batch[f"ref_{name}"] = torch.cat([one[name] for _, one, _ in found])
        batch["values"] = torch.cat([values for _, _, values in found])

    def advantages(batch: dict) -> None:
        mask = batch["mask"]
        rewards = token_rewards(mask.shape).to(wanted.device) * mask - KL * (batch["logprobs"] - batch["ref_logprobs"])
        last, found = 0.0, []
        for t in reversed(range(mask.shape[1])):
            following = batch["values"][:, t + 1] if t + 1 < mask.shape[1] else 0.0
            last = rewards[:, t] + GAMMA * following - batch["values"][:, t] + GAMMA * GAE_LAMBDA * last
            found.append(last)
        batch["advantages"] = torch.stack(found[::-1], dim=1)
        batch["returns"] = batch["advantages"] + batch["values"]

    def loss(part: dict, tokens):
        mask = part["mask"]
        logprobs = read_policy(policy, part)["logprobs"]
        values = read_values(part)
        ratio = torch.exp(logprobs - part["logprobs"])
        gain = torch.max(-part["advantages"] * ratio, -part["advantages"] * torch.clamp(ratio, 1.0 - CLIP, 1.0 + CLIP))
        clipped = torch.max(torch.min(values, part["values"] + CLIP), part["values"] - CLIP)
        error = torch.max(torch.square(values - part["returns"]), torch.square(clipped - part["returns"]))
        return ((gain * mask).sum() + 0.5 * (error * mask).sum()) / tokens

    def step(laps) -> int:
        for model in (policy, body):
            model.eval()
        batch = rollout()
        laps("sampling")
        read(batch)
        laps("reading")
        advantages(batch)
        for model in (policy, body):
            model.train()
        for _ in range(wanted.epochs):
            optimizer.zero_grad()
            for part in parts(batch):
                loss(part, batch["mask"].sum()).backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()
        laps("updates")
        return int(batch["mask"].sum())

    return step


def measure(side: str, folder: Path, wanted: argparse.Namespace) -> None:
    """In a process of its own: take the steps and print their phases and the peak of memory."""
    import torch

    on_gpu = wanted.device != "cpu"
    torch.set_num_threads(wanted.threads)
    step = {"ours": step_of_ours, "released": step_of_released}[side](folder, wanted)
    loaded_mib = peak_of_memory(on_gpu)
    rounds = []
    if on_gpu:
        step(lambda _: None)
    for _ in range(wanted.rounds):
        phases: dict[str, float] = {}
        last = time.perf_counter()

        def laps(name: str, phases: dict[str, float] = phases) -> None:
            nonlocal last
            if on_gpu:
                torch.cuda.synchronize()
            now = time.perf_counter()
            phases[name], last = now - last, now

        tokens = step(laps)
        rounds.append({"phases": phases, "tokens": tokens})
    print(json.dumps({"rounds": rounds, "peak_mib": peak_of_memory(on_gpu), "loaded_mib": loaded_mib}))


def peak_of_memory(on_gpu: bool) -> float:
    """MiB so far: tensors on the device, or all of the process."""
    import torch

    if on_gpu:
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {
        "prompts": 2, "samples": 4, "prompt-tokens": 700, "max-prompt-tokens": 1024, "new-tokens": 96, "epochs": 4,
        "microbatch": 4, "threads": 2, "rounds": 1, "width": 256, "layers": 4,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--gradient-checkpointing", action="store_true", help="of our side")
    parser.add_argument("--bf16", action="store_true", help="of our side")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--measure", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.measure:
        measure(wanted.measure, wanted.folder, wanted)
        return
    with tempfile.TemporaryDirectory() as name:
        write_files(Path(name), wanted)
        found = {}
        for side in wanted.sides:
            command = [sys.executable, __file__, *sys.argv[1:], "--measure", side, "--folder", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            found[side] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{wanted.prompts} prompts of about {wanted.prompt_tokens} tokens x {wanted.samples} samples, "
        f"{wanted.new_tokens} new tokens, {wanted.epochs} epochs, micro-batch {wanted.microbatch}, "
        f"T5 of width {wanted.width} with {wanted.layers} + {wanted.layers} layers, "
        f"{wanted.device}, {wanted.threads} threads; median of {wanted.rounds}\n"
    )
    print(
        "| | sampling, s | reading, s | updates, s | step, s | peak, MiB | of it loaded | tokens |\n" + "|---" * 8 + "|"
    )
    totals = {}
    for side, result in found.items():
        medians = {
            name: statistics.median(one["phases"][name] for one in result["rounds"])
            for name in ("sampling", "reading", "updates")
        }
        totals[side] = (sum(medians.values()), result["peak_mib"])
        cells = [f"{seconds:.2f}" for seconds in (*medians.values(), totals[side][0])]
        memory = [f"{result['peak_mib']:.0f}", f"{result['loaded_mib']:.0f}", str(result["rounds"][-1]["tokens"])]
        print(f"| {side} | {' | '.join([*cells, *memory])} |")
    if len(totals) == len(SIDES):
        (old_s, old_mib), (new_s, new_mib) = totals["released"], totals["ours"]
        print(f"\nours / released: {new_s / old_s:.2f} of the time, {new_mib / old_mib:.2f} of the memory")


if __name__ == "__main__":
    main()
