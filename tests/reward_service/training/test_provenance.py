from pathlib import Path

from reward_service.config import load_settings
from reward_service.registry.store import Store
from reward_service.training.config import TrainConfig
from reward_service.training.data_files import DataFile
from reward_service.training.provenance import find_trained, settings_digest


def test_settings_data_and_encoder_change_the_digest(trained: tuple[Path, Path]) -> None:
    config = load_settings(trained[0], TrainConfig)
    base = settings_digest(config, "factuality")
    assert base == settings_digest(config, "factuality") != settings_digest(config, "preference")
    assert base != settings_digest(config.model_copy(update={"seed": 1}), "factuality")
    swapped = config.data.model_copy(update={"train": config.data.dev})
    assert base != settings_digest(config.model_copy(update={"data": swapped}), "factuality")
    # Where things lie, how many threads there are and how often checkpoints are written changes nothing.
    elsewhere = {"store": Path("x"), "work": Path("y"), "reports": Path("z"), "threads": 2, "checkpoint_steps": 5}
    assert base == settings_digest(config.model_copy(update=elsewhere), "factuality")
    assert find_trained(Store(trained[1]), "factuality", base) is not None
    assert find_trained(Store(trained[1]), "preference", base) is None


def test_slices_of_one_file_are_told_apart(trained: tuple[Path, Path]) -> None:
    config = load_settings(trained[0], TrainConfig)
    path = config.data.train[0].path
    digests = {
        settings_digest(
            config.model_copy(
                update={"data": config.data.model_copy(update={"train": [DataFile.parse(f"{path}{bounds}")]})}
            ),
            "factuality",
        )
        for bounds in ("", "[:10]", "[10:]", "[:-10]")
    }
    assert len(digests) == 4
