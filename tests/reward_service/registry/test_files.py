import hashlib
import json
from pathlib import Path

import pytest

from reward_service.errors import StoreError
from reward_service.registry.files import check_model_directory, combined_digest, sha256_of


def test_a_plain_directory_passes(files: Path) -> None:
    assert [path.name for path in check_model_directory(files)] == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(files: Path, name: str) -> None:
    (files / name).unlink()
    with pytest.raises(StoreError, match=f"{name}: missing"):
        check_model_directory(files)


def test_sharded_weights_pass(files: Path) -> None:
    (files / "model.safetensors").rename(files / "model-00001-of-00001.safetensors")
    (files / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    assert len(check_model_directory(files)) == 4


@pytest.mark.parametrize("name", ["pytorch_model.bin", "x.pt", "x.PTH", "x.pkl", "x.ckpt", "x.pickle", "x.joblib"])
def test_pickles_are_refused_by_their_names(files: Path, name: str) -> None:
    (files / name).write_bytes(b"anything")
    with pytest.raises(StoreError, match=f"{name}: pickled"):
        check_model_directory(files)


@pytest.mark.parametrize("head", [b"\x80\x04\x95", b"PK\x03\x04torch"])
def test_pickles_are_refused_by_their_content(files: Path, head: bytes) -> None:
    (files / "weights.data").write_bytes(head)
    with pytest.raises(StoreError, match=r"weights\.data: pickled"):
        check_model_directory(files)
    (files / "weights.data").rename(files / "model.safetensors")
    with pytest.raises(StoreError, match=r"model\.safetensors: is not a safetensors"):
        check_model_directory(files)


def test_a_header_length_that_looks_like_a_pickle_passes(files: Path) -> None:
    header = b"{}".ljust(0x0480)  # its length begins with a pickle's bytes 80 04
    (files / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    check_model_directory(files)


@pytest.mark.parametrize("name", ["modeling_custom.py", "kernel.so"])
def test_code_is_refused(files: Path, name: str) -> None:
    (files / name).write_text("print()")
    with pytest.raises(StoreError, match=f"{name}: code"):
        check_model_directory(files)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_configuration_that_asks_for_code_is_refused(files: Path, name: str) -> None:
    (files / name).write_text(json.dumps({"auto_map": {"AutoModel": "x.Model"}}))
    with pytest.raises(StoreError, match=f"{name}: 'auto_map'"):
        check_model_directory(files)


def test_links_are_refused_only_if_they_lead_out(tmp_path: Path, files: Path) -> None:
    (files / "README.md").symlink_to(files / "config.json")
    check_model_directory(files)
    (tmp_path / "secret").write_text("x")
    (files / "vocab.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(StoreError, match=r"vocab\.txt: a link out"):
        check_model_directory(files)


def test_sub_directories_are_refused(files: Path) -> None:
    (files / "onnx").mkdir()
    with pytest.raises(StoreError, match="onnx: only plain files"):
        check_model_directory(files)


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such directory"):
        check_model_directory(tmp_path / "absent")


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    expected = hashlib.sha256(b"1  a\n2  b\n").hexdigest()
    assert combined_digest({"b": "2", "a": "1"}) == combined_digest({"a": "1", "b": "2"}) == expected
