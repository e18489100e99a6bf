"""Existing trainers' own code against a running service. Run by hand, in an environment of its own:

    python -m venv trainers && trainers/bin/pip install trl aiohttp requests httpx pydantic     # and torch
    pip download --no-deps openrlhf verl llamafactory -d wheels
    for wheel in wheels/*.whl; do unzip -qo $wheel -d wheels/unpacked; done
    PYTHONPATH=.:proto trainers/bin/python tests/compat_checks/trainers.py \\
        --url http://127.0.0.1:8000 --wheels wheels/unpacked

The service must serve models with `compat.weights` and `compat.response_after: "<|im_start|>assistant\\n"`. What these
modules import beside the function that is tried (ray, DeepSpeed, ...) is replaced by stand-ins; the function is not.
"""

import argparse
import asyncio
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import httpx

USER = "<|im_start|>user\nWho made Bloom?<|im_end|>\n<|im_start|>assistant\n"
ANSWER = "Beach House made it. It came out in 2012."


def load(path: Path, name: str, stand_ins: list[str]) -> types.ModuleType:
    """Import one file as the module `name`, with stand-ins for what it imports."""
    parents = [".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 1)]
    for stand_in in [*parents, *stand_ins]:
        module = MagicMock(name=stand_in)
        module.__path__, module.__spec__ = [], None
        sys.modules.setdefault(stand_in, module)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def find(wheels: Path, ending: str) -> Path:
    (path,) = list(wheels.rglob(ending))
    return path


def native(url: str, path: str, body: Any) -> Any:
    """What the service answers to a plain request."""
    reply = httpx.post(f"{url}{path}", json=body, timeout=60)
    reply.raise_for_status()
    return reply.json()


def expect(name: str, given: float, expected: float) -> None:
    assert abs(given - expected) < 1e-6, f"{name}: {given} is not {expected}"
    print(f"{name}: {given:.6f}, as asked for plainly")


def check_openrlhf(url: str, wheels: Path) -> None:
    path = find(wheels, "openrlhf/utils/agent.py")
    agent = load(path, "openrlhf.utils.agent", ["openrlhf.utils.logging_utils"])
    executor = agent.SingleTurnAgentExecutor([f"{url}/get_reward"])
    query = USER + ANSWER + "<|im_end|>"
    (reply,) = asyncio.run(executor._fetch_rewards_via_http([query], [USER], ["label"]))
    expected = native(url, "/rm", {"prompt": USER.strip(), "response": ANSWER})
    expect("OpenRLHF rewards", reply["rewards"][0], expected)
    expect("OpenRLHF scores", reply["scores"][0], expected)
    assert all(len(values) == 1 for values in reply["extra_logs"].values())
    print("OpenRLHF extra_logs:", reply["extra_logs"])


def check_verl(url: str, wheels: Path) -> None:
    import torch

    stand_ins = ["ray", "ray.actor", "omegaconf", "tensordict", "verl.protocol", "verl.single_controller.ray.base"]
    stand_ins += ["verl.single_controller", "verl.single_controller.ray", "verl.trainer", "verl.trainer.ppo"]
    stand_ins += ["verl.trainer.ppo.reward", "verl.utils", "verl.utils.fs", "verl.utils.ray_utils"]
    stand_ins += ["verl.experimental.reward_loop.reward_model"]
    path = find(wheels, "verl/experimental/reward_loop/reward_loop.py")
    loop = load(path, "verl.experimental.reward_loop.reward_loop", stand_ins)
    worker = object.__new__(loop.RewardLoopWorker)
    rollout = types.SimpleNamespace(name="vllm")
    model = types.SimpleNamespace(rollout=rollout, model_path="my/reward-model")
    worker.config = types.SimpleNamespace(reward=types.SimpleNamespace(reward_model=model))
    worker.reward_router_address = url.removeprefix("http://")
    worker.input_tokenizer = types.SimpleNamespace(
        eos_token="<|im_end|>", decode=lambda ids: "".join(map(chr, ids.tolist())) + "<|im_end|>"
    )
    worker.reward_model_tokenizer = types.SimpleNamespace(bos_token=None, apply_chat_template=chat_markup)
    responses = torch.tensor([ord(character) for character in ANSWER])
    batch = {"responses": responses, "attention_mask": torch.ones(len(responses) + 3, dtype=torch.long)}
    prompt = [{"role": "user", "content": "Who made Bloom?"}]
    data = [types.SimpleNamespace(non_tensor_batch={"raw_prompt": prompt}, batch=batch)]
    given = asyncio.run(worker.compute_score_disrm(data))["reward_score"]
    expect(
        "verl",
        given,
        native(url, "/rm", {"prompt": USER.removesuffix("<|im_start|>assistant\n").strip(), "response": ANSWER}),
    )


def chat_markup(chat: list[dict[str, str]], **_: Any) -> str:
    return "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in chat)


def check_llama_factory(url: str, wheels: Path) -> None:
    names = ["llamafactory.extras", "llamafactory.extras.packages"]
    path = find(wheels, "llamafactory/train/ppo/ppo_utils.py")
    utils = load(path, "llamafactory.train.ppo.ppo_utils", names)
    given = utils.get_rewards_from_server(f"{url}/v1/rewards", ["<s>" + USER + ANSWER + "<|im_end|>"] * 2)
    prompt = USER.removesuffix("<|im_start|>assistant\n").strip()
    for value in given.tolist():
        expect("LLaMA-Factory", value, native(url, "/rm", {"prompt": prompt, "response": ANSWER}))


def check_trl(url: str, folder: Path) -> None:
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    from rl_client.api import RewardClient
    from rl_client.api.trl import reward_functions

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast = Tokenizer(models.BPE({token: index for index, token in enumerate(["<eos>", *letters])}, []))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast, eos_token="<eos>", pad_token="<eos>")
    torch.manual_seed(0)
    size = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 256}
    policy = GPT2LMHeadModel(GPT2Config(vocab_size=len(letters) + 1, bos_token_id=0, eos_token_id=0, **size))
    seen: dict[str, list[float | None]] = {}

    def watched(function: Callable[..., list[float | None]]) -> Callable[..., list[float | None]]:
        def call(**arguments: Any) -> list[float | None]:
            rewards = function(**arguments)
            seen.setdefault(function.__name__, []).extend(rewards)
            return rewards

        call.__name__ = function.__name__
        return call

    with RewardClient(url, client_job="trl") as client:
        data = Dataset.from_list(
            [{"prompt": f"Who made album {n}?", "question": f"Who made album {n}?"} for n in range(8)]
        )
        arguments = GRPOConfig(
            output_dir=str(folder),
            per_device_train_batch_size=4,
            num_generations=2,
            max_completion_length=24,
            max_steps=2,
            logging_steps=1,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
        )
        trainer = GRPOTrainer(
            model=policy,
            reward_funcs=[watched(function) for function in reward_functions(client)],
            args=arguments,
            train_dataset=data,
            processing_class=tokenizer,
        )
        trainer.train()
        logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert seen
    assert all(isinstance(value, float) for values in seen.values() for value in values)
    print("TRL logged:", [{key: entry[key] for key in entry if key.startswith("rewards/")} for entry in logged])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--only", choices=["openrlhf", "verl", "llama_factory", "trl"])
    given = parser.parse_args()
    checks: dict[str, Callable[[], None]] = {
        "openrlhf": lambda: check_openrlhf(given.url, given.wheels),
        "verl": lambda: check_verl(given.url, given.wheels),
        "llama_factory": lambda: check_llama_factory(given.url, given.wheels),
        "trl": lambda: check_trl(given.url, given.wheels / "trl-run"),
    }
    for name, check in checks.items():
        if given.only in (None, name):
            check()


if __name__ == "__main__":
    main()
