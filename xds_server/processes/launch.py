"""Start a program that ends with its parent: ``python -m xds_server.processes.launch PARENT PROGRAM ARGUMENT…``.

If a control plane is killed, no Envoy may stay that holds the ports and serves an old gateway.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Make Linux send SIGTERM to this process when its parent dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def main(argv: list[str]) -> None:
    """Make Linux send a signal when the parent dies, then become the program."""
    parent, program = int(argv[0]), argv[1]
    end_with_parent()
    if os.getppid() != parent:
        raise SystemExit("the parent is gone")
    os.execv(program, argv[1:])  # noqa: S606 - the program is Envoy, its arguments are ours


if __name__ == "__main__":
    main(sys.argv[1:])
