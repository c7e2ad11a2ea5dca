"""Child processes that are forked, restarted if they die, and ended together.

The parent never starts a thread or an event loop, because forking is safe only then. It waits for signals instead of
handling them.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping

from xds_server.errors import EnvironmentFailed, XdsError
from xds_server.processes.launch import end_with_parent

log = logging.getLogger(__name__)

SHORTEST, LONGEST = 0.1, 5.0
"""Seconds before a child is restarted. The time doubles with each child that dies young."""
YOUNG = 10.0
PR_SET_NAME = 15
"""prctl(2): the name that `ps -o comm` and `top` show, at most 15 bytes."""
_WAITED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}


class ForkSupervisor:
    """Runs each of `children` in its own process under its name. The return value of a child is its exit code.

    At the end, the supervisor calls `ending` and sends SIGTERM to the children. It sends SIGKILL to children that
    still run after `grace` seconds.
    """

    def __init__(
        self, children: Mapping[str, Callable[[], int]], grace: float, ending: Callable[[], None]
    ) -> None:
        self._children = children
        self._grace = grace
        self._ending = ending
        self._running: dict[int, str] = {}
        """Names by process id."""
        self._begun: dict[str, float] = {}
        """The time of the last start, by name."""
        self._due = dict.fromkeys(children, 0.0)
        self._pause = dict.fromkeys(children, SHORTEST)

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, or until a child fails at its first start. Returns the exit code."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
        try:
            return self._run()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _run(self) -> int:
        while True:
            for name in [child for child, when in self._due.items() if when <= time.monotonic()]:
                self._start(name)
            received = signal.sigtimedwait(_WAITED, self._until_due())
            if received is not None and received.si_signo != signal.SIGCHLD:
                return self._end(0)
            for name, code in self._reaped():
                if code == EnvironmentFailed.exit_code and self._pause[name] == SHORTEST:
                    return self._end(code)
                self._restart_later(name, code)

    def _until_due(self) -> float:
        return max(0.0, min(self._due.values(), default=60.0 + time.monotonic()) - time.monotonic())

    def _start(self, name: str) -> None:
        del self._due[name]
        self._begun[name] = time.monotonic()
        process = os.fork()
        if process == 0:
            _become(name, self._children[name])
        self._running[process] = name

    def _reaped(self) -> list[tuple[str, int]]:
        """Return the names and exit codes of children that died. A signal is a negative exit code."""
        ended_children = []
        for process in tuple(self._running):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                ended_children.append((self._running.pop(process), os.waitstatus_to_exitcode(status)))
        return ended_children

    def _restart_later(self, name: str, code: int) -> None:
        now = time.monotonic()
        pause = self._pause[name] if now - self._begun[name] < YOUNG else SHORTEST
        log.error("%s ended; it is started again code=%d wait=%.1fs", name, code, pause)
        self._due[name] = now + pause
        self._pause[name] = min(pause * 2, LONGEST)

    def _end(self, code: int) -> int:
        self._ending()
        self._signal(signal.SIGTERM)
        latest = time.monotonic() + self._grace
        while self._running:
            received = signal.sigtimedwait(_WAITED, max(0.0, latest - time.monotonic()))
            if received is None:
                self._signal(signal.SIGKILL)
                latest = time.monotonic() + 1.0
            self._reaped()
        return code

    def _signal(self, number: int) -> None:
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)


def _become(name: str, child: Callable[[], int]) -> None:
    """Run a child in the forked process. This never returns."""
    code = 1
    try:
        end_with_parent()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED)
        code = child()
    except XdsError as error:
        sys.stderr.write(f"{error}\n")
        code = error.exit_code
    except BaseException:
        log.exception("%s failed", name)
    finally:
        sys.stderr.flush()
        os._exit(code)
