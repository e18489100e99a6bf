"""deploy/Dockerfile.cpu is built, and its service runs as the image says and as deploy/compose.yaml confines it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from reward_proto import ScoreReply
from tests.deploy.container import Container
from tests.deploy.image_build import Buildah, why_not_here

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile.cpu"
MODELS = ["relevance", "factuality", "completeness"]
SETTINGS = "/etc/reward-service/service.yaml"
SENT_FILES = [".dockerignore", "constraints.txt", "LICENSE", "pyproject.toml", "README.md"]
SENT_FOLDERS = ["deploy", "proto", "reward_service", "rl_client", "tests/deploy", "docs"]
"""What goes into the context of a build, and some that is to be left out of what is sent of it."""
UNTRACKED = [
    ".env",
    ".venv/bin/python",
    "runs/demo/store/relevance/model.safetensors",
    "reward_service/__pycache__/cli.cpython-311.pyc",
    "reward_service/core/__pycache__/align.cpython-312.pyc",
    "proto/reward_proto/__pycache__/score.cpython-311.pyc",
]
ITEM = {"prompt": "Where is it?", "response": "It is big. It is old.", "fields": {"question": "Where is it?"}}
SPANS = [(0, 10), (11, 21)]
"""Of its sentences, which are its sub-sentences too."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Image(NamedTuple):
    """What was built: its files, and its configuration."""

    root: Path
    config: dict[str, Any]


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """Buildah with a storage of its own, which is removed afterwards."""
    if reason := why_not_here():
        pytest.skip(reason)
    made = Buildah(tmp_path_factory.mktemp("images"))
    yield made
    made.remove()


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The repository's files that an image could need, as a clean checkout has them."""
    files = [ROOT / name for name in SENT_FILES]
    for folder in SENT_FOLDERS:
        files += [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return [str(path.relative_to(ROOT)) for path in files]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory, tracked: list[str]) -> Path:
    """A working tree as it lies about: the repository's files, and what working in it leaves."""
    folder = tmp_path_factory.mktemp("context")
    for path in tracked:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    for path in UNTRACKED:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("not for an image")
    return folder


@pytest.fixture(scope="module")
def image(buildah: Buildah, context: Path) -> Image:
    """The image of Dockerfile.cpu with all that it holds by itself."""
    buildah.make_base()
    config = buildah.build(context / DOCKERFILE.relative_to(ROOT), context, "reward-service:cpu")
    return Image(buildah.unpack("reward-service:cpu"), config)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models of the three names, exported to ONNX."""
    from reward_service.registry.store import Store
    from tests.reward_service.conftest import publish_tiny, tiny_manifests

    root = tmp_path_factory.mktemp("store")
    for seed, manifest in enumerate(tiny_manifests()):
        publish_tiny(Store(root), tmp_path_factory.mktemp("scratch"), manifest, seed)
    root.chmod(0o755)  # A folder of pytest's is its owner's alone; what was published everybody may read.
    return root


@pytest.fixture
def start(image: Image, store: Path, tmp_path: Path) -> Iterator[Callable[..., Container]]:
    """Starts the image's service over the store, with further files of the host in it."""
    started: list[Container] = []

    def start(mounts: dict[str, Path] | None = None) -> Container:
        every = {"/models": store, **(mounts or {})}
        started.append(Container(image.root, image.config, every, tmp_path / "log"))
        return started[-1]

    yield start
    for container in started:
        container.kill()


def score(container: Container) -> ScoreReply:
    status, reply = container.request("/v1/score", {"items": [ITEM]})
    assert status == 200, reply
    return ScoreReply.model_validate_json(reply)


def test_only_the_repositorys_files_are_sent_to_a_build(
    buildah: Buildah, context: Path, tracked: list[str], tmp_path: Path
) -> None:
    everything = tmp_path / "Dockerfile"
    everything.write_text("FROM scratch\nCOPY . /\n")
    buildah.build(everything, context, "everything")
    root = buildah.unpack("everything")
    sent = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert sent - set(tracked) == set()
    packages = {path for path in tracked if path.startswith(("reward_service/", "rl_client/", "proto/reward_proto/"))}
    assert packages <= sent
    assert not any(path.startswith(("tests/", "demo/", "docs/")) for path in sent)


def test_the_service_answers_as_the_images_user(start: Callable[..., Container], image: Image) -> None:
    container = start()
    (result,) = score(container).results
    assert list(result.scores) == MODELS
    assert {score.runtime for score in result.scores.values()} == {"onnxruntime-fp32"}
    for name in ("relevance", "factuality"):
        assert [(found.start, found.end) for found in result.scores[name].segments or ()] == SPANS
    assert all(score.sequence_score is not None for score in result.scores.values())

    assert image.config["User"] == "10001"
    status = container.status()
    assert (set(status["Uid"].split()), int(status["CapEff"], 16)) == ({"10001"}, 0)
    healthy = image.config["Healthcheck"]["Test"]
    assert healthy[0] == "CMD"
    asked = container.run(*healthy[1:])
    assert asked.returncode == 0, asked.stderr


def test_the_image_has_neither_torch_nor_transformers(start: Callable[..., Container]) -> None:
    container = start()
    for name, found in (("onnxruntime", 0), ("openvino", 0), ("torch", 1), ("transformers", 1)):
        asked = container.run("python", "-c", f"import {name}")
        assert asked.returncode == found, asked.stderr
        assert found == 0 or f"No module named '{name}'" in asked.stderr


def test_it_drains_and_ends_in_the_time_that_compose_gives(
    start: Callable[..., Container], services: dict[str, Any]
) -> None:
    container = start()
    grace_s = float(services["reward-service"]["stop_grace_period"].removesuffix("s"))
    assert container.stop(grace_s) == 0
    said = container.log.read_text()
    assert "SIGTERM: draining, 0 requests at work" in said
    assert "Traceback" not in said


def test_settings_may_keep_files_in_the_one_writable_folder(
    start: Callable[..., Container], image: Image, services: dict[str, Any], tmp_path: Path
) -> None:
    state = image.config["WorkingDir"]
    assert [mount for mount in services["reward-service"]["volumes"] if mount.endswith(f":{state}")]
    settings = yaml.safe_load((ROOT / "deploy" / "configs" / "service-container.yaml").read_text())
    for name in ("cache", "ledger", "annotate"):
        settings[name] = {"path": f"{state}/{name}.db"}
    changed = tmp_path / "service.yaml"
    changed.write_text(yaml.safe_dump(settings))
    container = start({SETTINGS: changed})
    assert len(score(container).results) == 1
    assert container.request("/annotate")[0] == 200
    kept = container.run("ls", state).stdout.split()
    assert {"cache.db", "ledger.db", "annotate.db"} <= set(kept)
    assert container.run("touch", "/etc/reward-service/other").returncode != 0
