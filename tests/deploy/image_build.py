"""Builds images with buildah in a storage of their own, on a base made by debootstrap: asks no registry of images."""

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

BASE = "docker.io/library/python:3.11-slim-bookworm"
MIRROR = "http://deb.debian.org/debian"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
PROGRAMS = {"buildah": "buildah", "debootstrap": "debootstrap", "ip": "iproute2", "unshare": "util-linux"}
# What the build and the containers do: namespaces, mounts in them, a loopback device of one's own.
PROBE = ["unshare", "--mount", "--net", "--pid", "--fork", "sh", "-c", "mount -t proc proc /proc && ip link set lo up"]
PROBE_TIMEOUT_S = 30.0


def why_not_here() -> str:
    """What this machine lacks for building images; empty where it lacks nothing."""
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if missing:
        return f"building images needs {' and '.join(missing)}: apt-get install {' '.join(missing)}"
    if os.geteuid() != 0:
        return "building images needs root"
    probed = subprocess.run(PROBE, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False)
    if probed.returncode != 0:
        return f"building images needs namespaces and mounts, which are forbidden here: {probed.stderr.strip()}"
    try:
        urllib.request.urlopen(f"{MIRROR}/dists/bookworm/Release", timeout=PROBE_TIMEOUT_S).close()
    except (urllib.error.URLError, TimeoutError) as error:
        return f"the base image needs {MIRROR}: {error}"
    return ""


class Buildah:
    """Images and containers, gigabytes, in `folder`, until `remove`.

    Outside it, buildah notes digests of what it wrote in /var/lib/containers/cache.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "tmp").mkdir()
        registries = folder / "registries.conf"
        registries.write_text('unqualified-search-registries = ["docker.io"]\n')
        self._command = ["buildah", "--storage-driver=vfs", f"--registries-conf={registries}"]
        self._command += [f"--root={folder}/root", f"--runroot={folder}/run"]
        # The Docker format alone keeps a HEALTHCHECK.
        self._env = {
            **os.environ,
            "BUILDAH_FORMAT": "docker",
            "BUILDAH_ISOLATION": "chroot",
            "TMPDIR": str(folder / "tmp"),
        }

    def __call__(self, *arguments: str) -> str:
        """Run one of buildah's commands; returns what it prints, fails with all it said."""
        return run([*self._command, *arguments], self._env)

    def make_base(self) -> None:
        """Debian's Python under the name of Docker Hub's image, which reaches PyPI as this machine does."""
        container = self("from", "scratch").strip()
        root = Path(self("mount", container).strip())
        run(
            [
                "debootstrap",
                "--variant=minbase",
                "--include=ca-certificates,python3,python3-venv",
                "bookworm",
                str(root),
                MIRROR,
            ]
        )
        (root / "usr/bin/python").symlink_to("python3")
        if CA_BUNDLE.exists():
            shutil.copyfile(CA_BUNDLE, root / CA_BUNDLE.relative_to("/"))
        (root / "etc/pip.conf").write_text(pip_conf())
        self("config", "--env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
        self("commit", "--rm", container, BASE)

    def build(self, dockerfile: Path, context: Path, tag: str) -> dict[str, Any]:
        """Build an image; returns its configuration."""
        self("build", "--pull-never", f"--file={dockerfile}", f"--tag={tag}", str(context))
        config: dict[str, Any] = json.loads(self("inspect", "--type=image", tag))["Docker"]["config"]
        return config

    def unpack(self, tag: str) -> Path:
        """The files of a new container of an image."""
        return Path(self("mount", self("from", "--pull-never", tag).strip()).strip())

    def remove(self) -> None:
        """Remove all images and containers; should a mount be left, what is mounted stays."""
        run(["rm", "-rf", "--one-file-system", str(self._folder)])


def pip_conf() -> str:
    """The index that this machine's pip asks, and the certificates it trusts."""
    asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    index = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    lines = ["[global]", f"cert = {CA_BUNDLE}", "timeout = 180"]
    return "\n".join([*lines, *([f"index-url = {index}"] if index else [])]) + "\n"


def run(command: list[str], env: dict[str, str] | None = None) -> str:
    """Run a program; returns what it prints, fails with all it said."""
    ended = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{' '.join(command)}\n{ended.stdout}{ended.stderr}"
    return ended.stdout
