"""The model store: immutable versions, aliases that move, digests that are checked, publishing that is all or nothing.

Layout::

    STORE/NAME/VERSION/{manifest.json,config.json,model.safetensors,tokenizer.json,...,digests.json}
    STORE/NAME/VERSION.exports/onnxruntime-fp32/{model.onnx,...,export.json} derived; never changes the version
    STORE/NAME/aliases.json                                                  {"latest": VERSION, ...}
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tokenizers import Tokenizer

from reward_service.core.segmenter_version import segmenter_version
from reward_service.errors import NotInStoreError, StoreError
from reward_service.registry import files as model_files
from reward_service.registry.architecture import read_config
from reward_service.registry.checkpoint import check_checkpoint, complete_config, read_tokenizer
from reward_service.registry.exports import ONNX_FILE, ExportRecord, read_record, summarize
from reward_service.registry.manifest import Manifest

VERSION_LENGTH = 12
"""Hex digits of the digest that make a version's name."""

DEFAULT_ALIAS = "latest"
ALIASES_FILE = "aliases.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_VERSION = re.compile(rf"[0-9a-f]{{{VERSION_LENGTH}}}")


@dataclass(frozen=True)
class Published:
    """A version in the store.

    Attributes:
        name: The model's name.
        version: The first digits of `digest`.
        digest: SHA-256 over weights, tokenizer, config and manifest, in hex.
        aliases: Moving names that point at this version now.
        manifest: What the model says of itself.
        path: The directory of its files.
    """

    name: str
    version: str
    digest: str
    aliases: tuple[str, ...]
    manifest: Manifest
    path: Path

    def summary(self) -> dict[str, Any]:
        """What `models list --json` tells of it."""
        return {
            "version": self.version,
            "digest": self.digest,
            "aliases": list(self.aliases),
            "exports": summarize(self.exports_path, self.version),
            **self.manifest.model_dump(mode="json"),
        }

    def load_tokenizer(self) -> Tokenizer:
        """The model's tokenizer, a fresh one at each call.

        Raises:
            StoreError: tokenizer.json cannot be read.
        """
        return read_tokenizer(self.path)

    @property
    def exports_path(self) -> Path:
        """Where exports of this version lie."""
        return self.path.with_name(f"{self.version}.exports")

    def export_path(self, runtime: str) -> Path:
        """Where an export of this version for a runtime, such as `onnxruntime-fp32`, lies or would lie."""
        return self.exports_path / runtime

    def export_record(self, runtime: str) -> ExportRecord:
        """The record of an export, whose files are verified against it.

        Raises:
            StoreError: Not exported, changed since, or made from another version.
        """
        directory = self.export_path(runtime)
        if not directory.is_dir():
            name, _, precision = runtime.rpartition("-")
            raise StoreError(
                f"{self.name}@{self.version} has no {name} {precision} export: run `reward-service export "
                f"{self.name} --runtime {name} --precision {precision}`"
            )
        return read_record(directory, self.version)

    def onnx_path(self, runtime: str = "onnxruntime-fp32") -> Path:
        """The ONNX file of an export that has one of its own, verified.

        Raises:
            StoreError: As `export_record`.
        """
        self.export_record(runtime)
        return self.export_path(runtime) / ONNX_FILE


class Store:
    """A directory of published models. Several processes may read and publish at once."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def publish(self, files: Path, manifest: Manifest, aliases: Sequence[str] = (DEFAULT_ALIAS,)) -> Published:
        """Copy a model's files into the store as a version, then point aliases at it.

        A reader sees the whole version or none of it. The same content is the same version, whoever publishes it.
        A config.json that lacks the `pad_token_id` that its model needs gets the tokenizer's.

        Args:
            files: A directory with config.json, model.safetensors, tokenizer.json and what else belongs to the model.
            manifest: Written as manifest.json, in place of one that is there.
            aliases: Names that point at this version from now on.

        Raises:
            StoreError: A file is missing or refused, parts of the model do not fit each other, an alias is no alias, or
                the manifest needs another segmenter.
        """
        for alias in aliases:
            _check_alias(alias)
        _check_segmenter(manifest)
        sources = [path for path in model_files.check_model_directory(files) if path.name not in _OWN_FILES]
        config = complete_config(files, manifest)
        check_checkpoint(files, manifest, config)
        model_dir = self._model_dir(manifest.name)
        model_dir.mkdir(parents=True, exist_ok=True)
        with model_files.staging(model_dir) as staged:
            for source in sources:
                model_files.copy_durably(source, staged / source.name)
            if config != read_config(files):
                model_files.write_durably(staged / model_files.CONFIG_FILE, _pretty(config))
            text = json.dumps(manifest.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False)
            model_files.write_durably(staged / model_files.MANIFEST_FILE, text.encode())
            digests = {path.name: model_files.sha256_of(path) for path in sorted(staged.iterdir())}
            model_files.write_durably(staged / model_files.DIGESTS_FILE, _pretty(digests))
            version = model_files.combined_digest(digests)[:VERSION_LENGTH]
            model_files.move_into_place(staged, model_dir / version)
        self.point(manifest.name, version, aliases)
        return self.resolve(f"{manifest.name}@{version}")

    def resolve(self, reference: str) -> Published:
        """Find a version and verify every file of it.

        Args:
            reference: `name` (its `latest`), `name@alias` or `name@version`.

        Raises:
            StoreError: No such model, alias or version; a file was changed, or is refused; or parts of the model do not
                fit each other.
        """
        published = self.find(reference)
        model_files.check_model_directory(published.path)
        model_files.verify_files(published.path, _read_digests(published.path))
        _check_segmenter(published.manifest)
        check_checkpoint(published.path, published.manifest, read_config(published.path))
        return published

    def find(self, reference: str) -> Published:
        """Find a version; its files are not verified.

        Args:
            reference: `name` (its `latest`), `name@alias` or `name@version`.

        Raises:
            NotInStoreError: No such model, alias or version.
            StoreError: Its manifest or digests cannot be read or were changed.
        """
        name, _, which = reference.partition("@")
        self._check_name(name)
        return self._read(name, self._version_of(name, which or DEFAULT_ALIAS))

    def list(self) -> list[Published]:
        """Every version in the store by name, then version; their weights are not verified.

        Raises:
            StoreError: A version's manifest or digests cannot be read.
        """
        found: list[Published] = []
        for name in self._names():
            versions = sorted(path.name for path in (self.root / name).iterdir() if _VERSION.fullmatch(path.name))
            found.extend(self._read(name, version) for version in versions)
        return found

    def point(self, name: str, version: str, aliases: Sequence[str]) -> None:
        """Make aliases name a version from now on; other aliases stay.

        Raises:
            StoreError: An alias is no alias, or there is no such model.
        """
        for alias in aliases:
            _check_alias(alias)
        model_dir = self._model_dir(name)
        with model_files.locked(model_dir):
            merged = {**self._aliases(name), **dict.fromkeys(aliases, version)}
            staged = model_dir / f".{ALIASES_FILE}.{os.getpid()}"
            model_files.write_durably(staged, _pretty(merged))
            staged.replace(model_dir / ALIASES_FILE)
            model_files.sync_directory(model_dir)

    def _model_dir(self, name: str) -> Path:
        self._check_name(name)
        return self.root / name

    def _check_name(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise NotInStoreError(f"{name!r} is not a model name")

    def _names(self) -> Iterable[str]:
        """Of the models, in order."""
        folders = sorted(self.root.iterdir()) if self.root.is_dir() else []
        return (path.name for path in folders if path.is_dir() and _NAME.fullmatch(path.name))

    def _version_of(self, name: str, which: str) -> str:
        if _VERSION.fullmatch(which):
            return which
        aliases = self._aliases(name)
        if which not in aliases:
            known = ", ".join(sorted(aliases)) or "none"
            raise NotInStoreError(f"{self.root / name}: no alias {which!r} (there is: {known})")
        return aliases[which]

    def _aliases(self, name: str) -> dict[str, str]:
        path = self._model_dir(name) / ALIASES_FILE
        if not path.parent.is_dir():
            if not self.root.is_dir():
                raise NotInStoreError(f"{self.root}: no such store")
            raise NotInStoreError(f"{path.parent}: no such model (there is: {', '.join(self._names()) or 'none'})")
        aliases = model_files.read_json_object(path) if path.exists() else {}
        for alias, version in aliases.items():
            if not isinstance(version, str) or not _VERSION.fullmatch(version):
                raise StoreError(f"{path}: alias {alias!r} does not name a version")
        return aliases

    def _read(self, name: str, version: str) -> Published:
        directory = self._model_dir(name) / version
        if not directory.is_dir() or directory.is_symlink():
            raise NotInStoreError(f"{directory}: no such version")
        digests = _read_digests(directory)
        digest = model_files.combined_digest(digests)
        if not digest.startswith(version):
            raise StoreError(f"{directory / model_files.DIGESTS_FILE}: changed since it was published")
        path = directory / model_files.MANIFEST_FILE
        if path.exists():
            model_files.verify_file(path, digests)
        try:
            manifest = Manifest.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise StoreError(f"{path}: {error}") from error
        if manifest.name != name:
            raise StoreError(f"{path}: says {manifest.name!r}, but the model is {name!r}")
        pointing = tuple(sorted(alias for alias, target in self._aliases(name).items() if target == version))
        return Published(name, version, digest, pointing, manifest, directory)


_OWN_FILES = frozenset({model_files.MANIFEST_FILE, model_files.DIGESTS_FILE})


def _check_alias(alias: str) -> None:
    if not _NAME.fullmatch(alias) or _VERSION.fullmatch(alias):
        raise StoreError(
            f"{alias!r} is not an alias: use letters, digits, '_', '.' and '-', and nothing like a version"
        )


def _check_segmenter(manifest: Manifest) -> None:
    needed, here = manifest.segmenter.version, segmenter_version(manifest.segmenter.language)
    if needed != here:
        raise StoreError(
            f"{manifest.name}: needs segmenter {needed}, but this is {here}: texts would be divided otherwise than "
            "those that the model was made for; install the sentencex that it was published with, or publish it again"
        )


def _pretty(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def _read_digests(directory: Path) -> dict[str, str]:
    digests = model_files.read_json_object(directory / model_files.DIGESTS_FILE)
    if not digests or not all(isinstance(value, str) for value in digests.values()):
        raise StoreError(f"{directory / model_files.DIGESTS_FILE}: lists no digests")
    return digests
