"""What reading a prompt once for all of its responses saves, with a decoder-only policy.

A Llama with random weights samples, reads (log-probabilities without a gradient) and learns from (forward and backward
passes) the same prompts and responses, the prompt once for each and then again with each response, in turns in one
process. No token ends a response, so that all turns do the same work. Seconds are those of the processor, of all
threads together: on a machine that other work shares they change less than those of the clock.

    python tests/benchmarks/bench_shared_prompts.py [--shape small|smollm2] [--rounds 3] [--threads 2] [--samples 4]
        [--prompt-tokens 700] [--new-tokens 96] [--gradient-checkpointing]
"""

import argparse
import statistics
import time

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from rl_client.rollout.sampling import Steering
from rl_client.rollout.stages import TokenBatch
from rl_client.training.models import PolicyModel
from rl_client.training.reader import recompute_activations

SHAPES = {
    "small": {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6, "vocab_size": 8192,
              "num_attention_heads": 4, "num_key_value_heads": 2},
    "smollm2": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 49152,
                "num_attention_heads": 9, "num_key_value_heads": 3},
}  # fmt: skip
"""Of SmolLM2-135M, and a small one."""
PHASES = ("sampling", "reading", "updates")


def make_policy(wanted: argparse.Namespace) -> PolicyModel:
    """Random weights of the wanted shape."""
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[wanted.shape], max_position_embeddings=4096, tie_word_embeddings=True)
    policy = PolicyModel(LlamaForCausalLM(config).eval())
    if wanted.gradient_checkpointing:
        recompute_activations(policy.network, policy.reader)
    return policy


def make_tokens(wanted: argparse.Namespace) -> TokenBatch:
    """Prompts within a tenth of the wanted length, responses of the full one."""
    torch.manual_seed(1)
    lengths = torch.linspace(0.9, 1.1, wanted.prompts).mul(wanted.prompt_tokens).long()
    prompt_mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    rows = wanted.prompts * wanted.samples
    response_ids = torch.randint(3, 8000, (rows, wanted.new_tokens))
    return TokenBatch(
        torch.randint(3, 8000, prompt_mask.shape) * prompt_mask,
        prompt_mask,
        torch.arange(wanted.prompts).repeat_interleave(wanted.samples),
        response_ids,
        torch.ones_like(response_ids, dtype=torch.bool),
    )


def take_turn(policy: PolicyModel, tokens: TokenBatch, wanted: argparse.Namespace) -> dict[str, float]:
    """Processor seconds of each phase."""
    config = GenerationConfig(do_sample=False, max_new_tokens=wanted.new_tokens, eos_token_id=1, pad_token_id=0,
                              suppress_tokens=[1])  # fmt: skip
    marks = [time.process_time()]
    with torch.no_grad():
        policy.sample(tokens.prompt_ids, tokens.prompt_mask, config, Steering(samples=wanted.samples))
        marks.append(time.process_time())
        policy.logprobs(policy.states(tokens), tokens, temperature=1.0)
        marks.append(time.process_time())
    policy.logprobs(policy.states(tokens), tokens, temperature=1.0).sum().backward()
    marks.append(time.process_time())
    policy.zero_grad()
    return {name: end - begin for name, begin, end in zip(PHASES, marks[:-1], marks[1:], strict=True)}


def main() -> None:
    """Take turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    for name, default in {
        "prompts": 1, "samples": 4, "prompt-tokens": 700, "new-tokens": 96, "threads": 2, "rounds": 3,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    policy, tokens = make_policy(wanted), make_tokens(wanted)
    turns: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for _ in range(wanted.rounds):
        for shared in (True, False):
            policy.reader.shares_prompts = shared
            turns[shared].append(take_turn(policy, tokens, wanted))
    print(f"{wanted}\n\n| | " + " | ".join(f"{name}, s" for name in PHASES) + " |\n" + "|---" * 4 + "|")
    seconds = {
        shared: [statistics.median(turn[name] for turn in taken) for name in PHASES] for shared, taken in turns.items()
    }
    for label, shared in (("a prompt read with each response", False), ("read once for all", True)):
        print(f"| {label} | " + " | ".join(f"{one:.2f}" for one in seconds[shared]) + " |")
    gains = [alone / together for alone, together in zip(seconds[False], seconds[True], strict=True)]
    print("| times as fast | " + " | ".join(f"{gain:.2f}" for gain in gains) + " |")


if __name__ == "__main__":
    main()
