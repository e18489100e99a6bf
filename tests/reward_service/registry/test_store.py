import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.errors import StoreError
from reward_service.registry.describe import describe
from reward_service.registry.files import combined_digest, sha256_of
from reward_service.registry.manifest import Manifest
from reward_service.registry.store import Store


def test_publish_then_resolve_by_name_alias_and_version(tmp_path: Path, files: Path, manifest: Manifest) -> None:
    store = Store(tmp_path / "store")
    published = store.publish(files, manifest, ["latest", "stable"])
    assert published.path == tmp_path / "store" / "relevance" / published.version
    assert len(published.version) == 12
    assert published.digest.startswith(published.version)
    assert published.manifest == manifest
    assert published.aliases == ("latest", "stable")
    for reference in ("relevance", "relevance@latest", "relevance@stable", f"relevance@{published.version}"):
        assert store.resolve(reference) == published
    assert published.load_tokenizer().encode("one").ids == [1]


def test_the_same_content_is_the_same_version(tmp_path: Path, files: Path, manifest: Manifest) -> None:
    store = Store(tmp_path / "store")
    first = store.publish(files, manifest)
    again = store.publish(first.path, manifest, ["again"])
    elsewhere = Store(tmp_path / "other").publish(files, manifest)
    assert first.version == again.version == elsewhere.version
    assert again.aliases == ("again", "latest")
    assert [published.version for published in store.list()] == [first.version]


def test_whatever_changes_a_score_changes_the_version(
    tmp_path: Path, files: Path, manifest: Manifest, other_weights: bytes
) -> None:
    store = Store(tmp_path / "store")
    versions = [store.publish(files, manifest).version]
    versions.append(store.publish(files, manifest.model_copy(update={"template": "{question}"})).version)
    (files / "model.safetensors").write_bytes(other_weights)
    versions.append(store.publish(files, manifest).version)
    (files / "tokenizer.json").write_text((files / "tokenizer.json").read_text() + " ")
    versions.append(store.publish(files, manifest).version)
    assert len(set(versions)) == 4
    assert store.resolve("relevance").version == versions[-1]
    assert store.resolve(f"relevance@{versions[0]}").aliases == ()
    assert {published.version for published in store.list()} == set(versions)


def test_an_alias_moves_and_others_stay(tmp_path: Path, files: Path, manifest: Manifest, other_weights: bytes) -> None:
    store = Store(tmp_path / "store")
    old = store.publish(files, manifest, ["latest", "stable"])
    (files / "model.safetensors").write_bytes(other_weights)
    new = store.publish(files, manifest)
    assert store.resolve("relevance").version == new.version
    assert store.resolve("relevance@stable").version == old.version
    store.point("relevance", new.version, ["stable"])
    assert store.resolve("relevance@stable").version == new.version


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "manifest.json"])
def test_a_changed_file_is_refused_by_name(tmp_path: Path, files: Path, manifest: Manifest, name: str) -> None:
    store = Store(tmp_path / "store")
    published = store.publish(files, manifest)
    path = published.path / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(StoreError, match=f"{name}: changed"):
        store.resolve("relevance")


def test_changed_digests_are_refused(tmp_path: Path, files: Path, manifest: Manifest, other_weights: bytes) -> None:
    store = Store(tmp_path / "store")
    published = store.publish(files, manifest)
    (published.path / "model.safetensors").write_bytes(other_weights)
    digests = json.loads((published.path / "digests.json").read_text())
    digests["model.safetensors"] = "0" * 64
    (published.path / "digests.json").write_text(json.dumps(digests))
    with pytest.raises(StoreError, match=r"digests\.json: changed"):
        store.resolve("relevance")


def test_a_missing_or_an_added_file_is_refused(tmp_path: Path, files: Path, manifest: Manifest) -> None:
    store = Store(tmp_path / "store")
    published = store.publish(files, manifest)
    (published.path / "extra.txt").write_text("hello")
    with pytest.raises(StoreError, match=r"extra\.txt: was added"):
        store.resolve("relevance")
    (published.path / "extra.txt").unlink()
    (published.path / "model.safetensors").unlink()
    with pytest.raises(StoreError, match=r"model\.safetensors: missing"):
        store.resolve("relevance")


def test_a_link_in_place_of_a_file_is_refused(tmp_path: Path, files: Path, manifest: Manifest) -> None:
    store = Store(tmp_path / "store")
    published = store.publish(files, manifest)
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(b"\x02" + bytes(7) + b"{}")
    (published.path / "model.safetensors").unlink()
    (published.path / "model.safetensors").symlink_to(outside)
    with pytest.raises(StoreError, match=r"model\.safetensors: a link out"):
        store.resolve("relevance")


@pytest.mark.parametrize(
    ("reference", "fault"),
    [
        ("absent", "no such model"),
        ("relevance@nightly", "no alias 'nightly'"),
        ("relevance@0123456789ab", "no such version"),
        ("../relevance", "not a model name"),
        ("relevance/..", "not a model name"),
        ("", "not a model name"),
        ("relevance@../x", "no alias"),
    ],
)
def test_unknown_references(tmp_path: Path, files: Path, manifest: Manifest, reference: str, fault: str) -> None:
    store = Store(tmp_path / "store")
    store.publish(files, manifest)
    with pytest.raises(StoreError, match=fault):
        store.resolve(reference)


@pytest.mark.parametrize("alias", ["0123456789ab", "", "a/b", "../x"])
def test_a_name_that_could_be_a_version_is_no_alias(
    tmp_path: Path, files: Path, manifest: Manifest, alias: str
) -> None:
    with pytest.raises(StoreError, match="is not an alias"):
        Store(tmp_path / "store").publish(files, manifest, [alias])
    assert not (tmp_path / "store").exists()


def test_another_segmenter_is_refused(
    tmp_path: Path, files: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = manifest.model_copy(update={"segmenter": manifest.segmenter.model_copy(update={"version": "other-9"})})
    store = Store(tmp_path / "store")
    with pytest.raises(StoreError, match="needs segmenter other-9, but this is sentencex-"):
        store.publish(files, other)
    monkeypatch.setattr("reward_service.registry.store.segmenter_version", lambda _: "other-9")
    version = store.publish(files, other).version
    monkeypatch.undo()
    with pytest.raises(StoreError, match="needs segmenter other-9"):
        store.resolve("relevance")
    assert [one.version for one in store.list()] == [version], "what cannot be served can still be listed"


def test_a_refused_directory_leaves_nothing_behind(tmp_path: Path, files: Path, manifest: Manifest) -> None:
    (files / "pytorch_model.bin").write_bytes(b"x")
    store = Store(tmp_path / "store")
    with pytest.raises(StoreError, match=r"pytorch_model\.bin: pickled"):
        store.publish(files, manifest)
    assert store.list() == []
    assert not list(tmp_path.glob("store/**/*"))


def _publish_many(root: str, files: str, manifest: str, name: str) -> None:
    store = Store(Path(root))
    for _ in range(5):
        store.publish(Path(files), Manifest.model_validate_json(manifest), [name, "latest"])


def test_publishers_at_once_lose_no_alias(tmp_path: Path, files: Path, manifest: Manifest) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = (str(tmp_path / "store"), str(files), manifest.model_dump_json())
    processes = [context.Process(target=_publish_many, args=(*arguments, f"alias{index}")) for index in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert Store(tmp_path / "store").resolve("relevance").aliases == ("alias0", "alias1", "alias2", "latest")
    assert len(Store(tmp_path / "store").list()) == 1
    left = {path.name for path in (tmp_path / "store" / "relevance").iterdir()}
    assert left == {Store(tmp_path / "store").resolve("relevance").version, "aliases.json", ".lock"}


def test_a_damaged_aliases_file_is_told(tmp_path: Path, files: Path, manifest: Manifest) -> None:
    store = Store(tmp_path / "store")
    published = store.publish(files, manifest)
    aliases = published.path.parent / "aliases.json"
    aliases.write_text('{"latest": "../../etc"}')
    with pytest.raises(StoreError, match=r"aliases\.json: alias 'latest'"):
        store.resolve("relevance")
    aliases.write_text("{")
    with pytest.raises(StoreError, match="not readable as JSON"):
        store.resolve("relevance")


def test_an_empty_store_lists_nothing(tmp_path: Path) -> None:
    assert Store(tmp_path / "absent").list() == []


def test_a_broken_tokenizer_is_told(tmp_path: Path, files: Path, manifest: Manifest) -> None:
    published = Store(tmp_path / "store").publish(files, manifest)
    (published.path / "tokenizer.json").write_text("{}")
    with pytest.raises(StoreError, match=r"tokenizer\.json"):
        published.load_tokenizer()


def test_what_does_not_fit_leaves_no_trace(tmp_path: Path, files: Path, manifest: Manifest) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(StoreError, match=r"model\.safetensors: classifier\.weight gives 2 logit\(s\), but .* 3 labels"):
        store.publish(files, manifest.model_copy(update={"labels": ("error", "ok", "unsure")}))
    assert store.list() == []


def test_a_version_is_checked_again_at_loading(
    tmp_path: Path, files: Path, manifest: Manifest, safetensors: Callable[..., bytes]
) -> None:
    """Its digests are those of what was published, by whomever; that they agree does not make it a model."""
    store = Store(tmp_path / "store")
    published = store.publish(files, manifest)
    weights = safetensors(("classifier.weight", "F32", (2, 1), np.float32([1.0, np.nan]).tobytes()))
    (published.path / "model.safetensors").write_bytes(weights)
    digests = {
        name: sha256_of(published.path / name) for name in json.loads((published.path / "digests.json").read_text())
    }
    (published.path / "digests.json").write_text(json.dumps(digests))
    forged = combined_digest(digests)[:12]
    published.path.rename(published.path.with_name(forged))
    with pytest.raises(StoreError, match=rf"{forged}/model\.safetensors: classifier\.weight holds NaN"):
        store.resolve(f"relevance@{forged}")


def test_a_needed_pad_id_is_written_into_the_config(
    tmp_path: Path, files: Path, safetensors: Callable[..., bytes]
) -> None:
    config = {"model_type": "llama", "vocab_size": 8, "num_labels": 1}
    (files / "config.json").write_text(json.dumps(config))
    (files / "model.safetensors").write_bytes(safetensors(("score.weight", "F32", (1, 4), bytes(16))))
    manifest = describe(
        files, name="m", kind=ModelKind.SEQUENCE_REGRESSION, granularity=Granularity.SEQUENCE, template="{prompt}"
    )
    published = Store(tmp_path / "store").publish(files, manifest)
    written = json.loads((published.path / "config.json").read_text())
    assert written == {**config, "pad_token_id": 0}  # The tokenizer has no padding; its separator stands in.
    assert json.loads((files / "config.json").read_text()) == config
    assert Store(tmp_path / "store").publish(published.path, manifest).version == published.version


def test_what_a_killed_publisher_left_is_not_seen(tmp_path: Path, files: Path, manifest: Manifest) -> None:
    store = Store(tmp_path / "store")
    published = store.publish(files, manifest)
    (published.path.parent / ".staged-abandoned").mkdir()
    assert [found.version for found in store.list()] == [published.version]
