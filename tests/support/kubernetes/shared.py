"""One API server for all tests of a session, also for those in several processes.

The first test that needs it starts a keeper: a process that has the API server, and that ends when the session's main
process ends, however that ends. So no process must know which test is the last one.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tests.support.kubernetes.api_server import ApiServer, Channel
from tests.support.kubernetes.namespace import Namespace
from tests.support.kubernetes.objects import Objects

_ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class SharedServer:
    """The API server of the session. Tests use namespaces of their own in it, and never stop it.

    `kubeconfig` is for processes of the host, `inside` for those in `network`.
    """

    kubeconfig: Path
    inside: Path
    network: Path
    """A file by which processes enter its network namespace."""

    def objects(self) -> Objects:
        """Return an administrator's view of the objects."""
        return Objects(self.kubeconfig)

    def namespace(self) -> Namespace:
        """Return its network namespace, for backends on addresses of pods and for an Envoy beside them."""
        return Namespace.at(self.network)


def session_process() -> int:
    """Return the main process of this session: pytest itself, also for a process of pytest-xdist."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


def shared_server(folder: Path, channel: Channel, session: int) -> SharedServer:
    """Return the session's API server, and start it if no other process of the session did so.

    `folder` is the same for all processes of the session. The API server ends with the process `session`.
    """
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        file = folder / "server.json"
        if not file.exists():
            _start_keeper(folder, channel, session)
    found = json.loads(file.read_text())
    return SharedServer(**{name: Path(path) for name, path in found.items()})


def _start_keeper(folder: Path, channel: Channel, session: int) -> None:
    watched = os.pidfd_open(session)
    command = [sys.executable, "-m", "tests.support.kubernetes.shared", str(folder), channel, str(watched)]
    log = folder / "keeper.log"
    with log.open("wb") as output:
        started = subprocess.run(command, cwd=_ROOT, stdout=output, stderr=output, pass_fds=[watched])
    os.close(watched)
    assert started.returncode == 0, f"the API server did not start:\n{log.read_text()}"


def _keep(folder: Path, channel: Channel, watched: int, ready: Callable[[], object]) -> None:
    """Have an API server until the process of a descriptor ends."""
    with ApiServer(folder / "data", crds=channel) as server:
        found = {"kubeconfig": server.kubeconfig, "inside": server.inside, "network": server.namespace.path}
        (folder / "server.json").write_text(json.dumps({name: str(path) for name, path in found.items()}))
        ready()
        select.select([watched], [], [])
    shutil.rmtree(folder)


def _main(folder: Path, channel: Channel, watched: int) -> None:
    """Become a process without a parent, and let the first process wait for the API server."""
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        os._exit(0 if os.read(reading, 1) else 1)
    os.close(reading)
    os.setsid()
    _keep(folder, channel, watched, lambda: os.write(writing, b"!"))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), cast("Channel", sys.argv[2]), int(sys.argv[3]))
