"""Every settings file is one that its program takes, and arms differ in what they are about and in nothing else."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import toxicity
from experiments.paper import TABLES
from experiments.prepare import OUTPUT
from reward_service.config import ServiceSettings
from reward_service.config import load_settings as load_service
from reward_service.training.config import TrainConfig as RewardTrainConfig
from rl_client.training.config import EvaluateConfig, SftConfig, TrainConfig

FOLDER = Path(__file__).parents[2] / "experiments"
FILES = sorted(path for size in ("full", "small") for path in (FOLDER / size).glob("*.yaml"))
QA_ARMS = {"sft", "holistic", "fine_grained", "short", "long"} | {
    f"without_{model}" for model in ("relevance", "factuality", "completeness")
}
DETOX_ARMS = {"initial", "holistic", "fine_grained"}


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def settings_of(path: Path) -> type[Any]:
    """The class of the command that a file is for, told by what it holds."""
    content = read(path)
    if path.stem.startswith("evaluate_"):
        return EvaluateConfig
    if path.stem.endswith("_service"):
        return ServiceSettings
    if "encoder" in content:
        return RewardTrainConfig
    return TrainConfig if "ppo" in content else SftConfig


def full(name: str) -> dict[str, Any]:
    return read(FOLDER / "full" / f"{name}.yaml")


def test_there_are_as_many_as_the_paper_needs() -> None:
    names = {path.stem for path in FILES if path.parent.name == "full"}
    trained = {f"qa_{arm}" for arm in QA_ARMS} | {f"detox_{arm}" for arm in DETOX_ARMS - {"initial"}}
    evaluated = {f"evaluate_qa_{arm}" for arm in QA_ARMS} | {f"evaluate_detox_{arm}" for arm in DETOX_ARMS}
    assert names == trained | evaluated | {"reward_models", "qa_service", "detox_service"}
    in_tables = {(table.family, row.arm) for table in TABLES for row in table.rows if row.arm is not None}
    assert in_tables == {("qa", arm) for arm in QA_ARMS} | {("detox", arm) for arm in DETOX_ARMS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_its_program_takes_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSPECTIVE_API_KEY", "a key")
    kind = settings_of(path)
    if kind in (ServiceSettings, RewardTrainConfig):
        load_service(path, kind)
    else:
        kind.model_validate(read(path))  # the files that it names are made by the runs before


@pytest.mark.parametrize("arm", sorted(QA_ARMS - {"sft", "fine_grained"}))
def test_qa_arms_differ_in_their_rewards(arm: str) -> None:
    ours, base = full(f"qa_{arm}"), full("qa_fine_grained")
    assert ours.pop("output") == f"runs/experiments/full/qa/{arm}"
    assert ours.pop("service")["url"] == base["service"]["url"]
    rewards = ours.pop("rewards")
    if arm == "holistic":
        assert rewards == [{"model": "preference", "weight": 1.0, "shaping": "zscore"}]
        assert ours["ppo"] == base["ppo"] | {"gae_lambda": 0.99, "kl_coefficient": 0.2}
        ours["ppo"] = base["ppo"]
    else:
        w1 = {"short": 0.4, "long": 0.2}.get(arm, 0.3)
        expected = [
            {"model": "relevance", "weight": w1, "shaping": "sign"},
            {"model": "factuality", "weight": 0.5, "shaping": "sign"},
            {"model": "completeness", "weight": 0.3, "shaping": "zscore"},
        ]
        assert rewards == [reward for reward in expected if reward["model"] != arm.removeprefix("without_")]
    assert ours == {key: value for key, value in base.items() if key not in ("output", "service", "rewards")}


def test_the_released_hyper_parameters() -> None:
    config = TrainConfig.model_validate(full("qa_fine_grained"))
    ppo, generation = config.ppo, config.generation
    assert ppo.steps * config.responses_per_step == 80_000
    assert (generation.top_k, generation.temperature, generation.samples_per_prompt) == (20, 0.7, 4)
    assert (config.max_prompt_tokens, generation.max_new_tokens) == (1024, 200)
    assert (ppo.epochs, ppo.learning_rate, ppo.adam_eps) == (4, 1e-5, 1e-5)
    assert (ppo.gamma, ppo.gae_lambda, ppo.kl_coefficient) == (1.0, 0.95, 0.3)
    assert (ppo.clip_range, ppo.value_clip_range, ppo.value_coefficient) == (0.2, 0.2, 1.0)
    assert (ppo.whiten_rewards, ppo.max_kl, ppo.max_kl_times) == (True, 10.0, 5)


@pytest.mark.parametrize("size", ["full", "small"])
def test_detoxification_differs_in_its_reward(size: str) -> None:
    holistic, dense = (read(FOLDER / size / f"detox_{arm}.yaml") for arm in ("holistic", "fine_grained"))
    assert [reward["model"] for reward in holistic.pop("rewards")] == ["toxicity_whole"]
    assert [reward["model"] for reward in dense.pop("rewards")] == ["toxicity"]
    for config in (holistic, dense):
        del config["output"], config["service"]["client_job"]
    assert holistic == dense


@pytest.mark.parametrize("path", [path for path in FILES if path.stem.startswith("evaluate_")], ids=lambda p: p.stem)
def test_arms_are_judged_alike(path: Path) -> None:
    _, family, arm = path.stem.split("_", maxsplit=2)
    first = {"qa": "sft", "detox": "initial"}[family]
    ours, base = read(path), read(path.with_name(f"evaluate_{family}_{first}.yaml"))
    root = f"runs/experiments/{path.parent.name}/{family}"
    assert ours.pop("output") == f"{root}/evaluation/{arm}"
    assert arm == "initial" or ours["policy"] == f"{root}/{arm}/policy"
    del ours["policy"], base["policy"], base["output"]
    assert ours == base


def test_services_serve_what_runs_ask_for() -> None:
    for size in ("full", "small"):
        for service in sorted((FOLDER / size).glob("*_service.yaml")):
            family = service.stem.removesuffix("_service")
            served = {model["name"] for model in read(service)["models"]}
            runs = [read(path) for path in FILES if path.parent.name == size and f"{family}_" in path.stem]
            runs = [run for run in runs if "rewards" in run]
            assert len(runs) >= 5
            for run in runs:
                assert {reward["model"] for reward in run["rewards"]} <= served
                assert run["service"]["url"] == f"http://{read(service)['host']}:{read(service)['port']}"


def test_full_runs_read_what_is_prepared() -> None:
    named = [read(path) for path in FILES if path.parent.name == "full"]
    prompts = {Path(run["prompts"]) for run in named if "prompts" in run}
    assert prompts == {OUTPUT / f"{name}.jsonl" for name in ("qa_train", "qa_dev", "detox_train", "detox_test")}


def test_functions_of_the_small_service_exist() -> None:
    functions = [model["function"] for model in read(FOLDER / "small" / "detox_service.yaml")["models"]]
    assert [name.partition(":")[0] for name in functions] == [toxicity.__name__] * 2
    assert all(callable(getattr(toxicity, name.partition(":")[2])) for name in functions)
