"""A Kubernetes cluster for a test: an API server, and a stand-in for the rest that runs pods in network namespaces."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.envoy import binary
from tests.support.kubernetes.api_server import ApiServer, Channel
from tests.support.kubernetes.namespace import Namespace
from tests.support.logged_process import LoggedProcess

_READY = "the stand-in is ready"


@contextmanager
def cluster(
    folder: Path, *, programs: Path, crds: Channel | Path = "standard", exec_server: Path | None = None
) -> Iterator[ApiServer]:
    """Run an API server with a stand-in for the rest of a cluster. `programs` has those of the conformance suite.

    With `exec_server`, commands can be run in containers.
    """
    with ApiServer(folder / "api", crds=crds, namespace=Namespace.node()) as server, ExitStack() as stack:
        standin = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        standin += ("sh", "-c", 'mkdir -p /run/netns; mount -t tmpfs tmpfs /run/netns; exec "$@"', "sh")
        standin += (sys.executable, "-m", "tests.support.kubernetes.standin")
        standin += ("--kubeconfig", str(server.inside), "--folder", str(folder / "standin"))
        standin += ("--programs", str(programs), "--envoy", str(binary()))
        standin += ("--exec-server", str(exec_server)) if exec_server is not None else ()
        process = LoggedProcess(server.namespace.command(*standin), folder / "standin.log")
        process.start()
        stack.callback(
            process.stop, signal.SIGKILL
        )  # all pods end with it, because it has its own process namespace
        process.says(_READY)
        yield server
