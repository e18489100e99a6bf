"""Runs an image's service as deploy/compose.yaml does, by namespaces alone: no engine, no cgroups.

The root is read-only but for /tmp and the working folder; the user is the image's, without any capability; the network
is a loopback device of its own, so that the port is the image's and meets nobody else's.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 90.0
POLL_S = 0.2

# Arguments: the root, the folder that stays writable, a file for the pid, `source:target` of each read-only mount,
# `--` and what to run. The first process of the new pid namespace becomes the service, as in a container.
ENTER = """
set -e
root=$1 state=$2
read -r pid rest </proc/self/stat
echo "$pid" >"$3"
shift 3
mount --bind "$root" "$root"
while [ "$1" != -- ]; do
    mount --bind -o ro "${1%%:*}" "$root${1#*:}"
    shift
done
shift
mount --bind "$root$state" "$root$state"
mount -t tmpfs tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t sysfs -o ro sysfs "$root/sys"
mount -o remount,bind,ro "$root"
ip link set lo up
exec chroot "$root" "$@"
"""

CLIENT = """
import sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1], sys.stdin.buffer.read() or None, {"Content-Type": "application/json"})
try:
    reply = urllib.request.urlopen(request, timeout=30)
except urllib.error.HTTPError as error:
    reply = error
except OSError as error:
    sys.exit(str(error))
print(reply.status, reply.read().decode())
"""


class Container:
    """A running service of an image.

    Args:
        root: The image's files.
        config: Its configuration, as Docker writes it.
        mounts: What lies where in it, read-only.
        log: The file for what it says.
    """

    def __init__(self, root: Path, config: dict[str, Any], mounts: dict[str, Path], log: Path) -> None:
        self.log = log
        self.pid = 0
        self._environment = config["Env"]
        (self._port,) = (port.removesuffix("/tcp") for port in config["ExposedPorts"])
        self._as_user = drop_to(root, config["User"])
        for target in mounts:
            place = root / target.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():  # As an engine makes it.
                place.mkdir()
        told_pid = log.with_suffix(".pid")
        enter = [
            "unshare",
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            ENTER,
            "enter",
            str(root),
        ]
        enter += [config["WorkingDir"], str(told_pid), *(f"{source}:{target}" for target, source in mounts.items())]
        command = [*(config["Entrypoint"] or []), *config["Cmd"]]
        with log.open("wb") as said:
            self._popen = subprocess.Popen(
                [*enter, "--", *self._as_user, *self._with_environment(config["WorkingDir"]), *command],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_ready(told_pid)
        except BaseException:
            self.kill()
            raise

    def run(self, *command: str, sent: str = "") -> subprocess.CompletedProcess[str]:
        """Run another program in it, as `docker exec` does."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--root", "--wd"]
        return subprocess.run(
            [*enter, *self._as_user, *self._with_environment(), *command],
            input=sent,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )

    def request(self, path: str, body: Any = None) -> tuple[int, str]:
        """Ask the service; returns the status, 0 if nobody answers, and the reply."""
        url = f"http://127.0.0.1:{self._port}{path}"
        asked = self.run("python", "-c", CLIENT, url, sent="" if body is None else json.dumps(body))
        if asked.returncode != 0:
            return 0, asked.stderr
        status, _, reply = asked.stdout.partition(" ")
        return int(status), reply

    def status(self) -> dict[str, str]:
        """What the kernel says of the service's process."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def stop(self, timeout_s: float) -> int:
        """SIGTERM, as an engine stops it; returns the exit status."""
        os.kill(self.pid, signal.SIGTERM)
        return self._popen.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL; the namespaces and their mounts go with the first process."""
        if self.pid and self._popen.poll() is None:  # It cast off its parent with its user: --kill-child misses it.
            os.kill(self.pid, signal.SIGKILL)
        self._popen.kill()
        self._popen.wait()

    def _with_environment(self, folder: str | None = None) -> list[str]:
        return ["env", "-i", *([f"--chdir={folder}"] if folder else []), *self._environment]

    def _wait_until_ready(self, told_pid: Path) -> None:
        end_s = time.monotonic() + START_TIMEOUT_S
        reply = "it did not start"
        while time.monotonic() < end_s and self._popen.poll() is None:
            if told_pid.exists() and told_pid.read_text().endswith("\n"):
                self.pid = int(told_pid.read_text())
                status, reply = self.request("/readyz")
                if status == 200:
                    return
            time.sleep(POLL_S)
        raise AssertionError(f"never ready: {reply}\n{self.log.read_text()}")


def drop_to(root: Path, user: str) -> list[str]:
    """The command that becomes a user of the image, given by number, with no capability and no way to one."""
    entries = [line.split(":") for line in (root / "etc/passwd").read_text().splitlines()]
    (group,) = (entry[3] for entry in entries if entry[2] == user)
    identity = [f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    return ["setpriv", *identity, "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"]
