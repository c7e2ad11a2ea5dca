"""Child processes that are forked, started again when they die, and ended together.

The parent never starts a thread or a loop: only so is forking safe, and signals are waited for instead of handled.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

from xds_server.errors import EnvironmentFailed, XdsError
from xds_server.proxy.launch import end_with_parent

log = logging.getLogger(__name__)

SHORTEST, LONGEST = 0.1, 5.0
"""Seconds before a child is started again: doubled each time that it died young."""
YOUNG = 10.0
_WAITED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}


class Supervisor:
    """Runs each of `children` in a process of its own; `ended` is told its number after one died.

    What a child returns is its exit code. They get SIGTERM at the end, and SIGKILL when they outlast `grace` seconds.
    """

    def __init__(
        self, children: Sequence[Callable[[], int]], grace: float, ended: Callable[[int], None]
    ) -> None:
        self._children = children
        self._grace = grace
        self._ended = ended
        self._running: dict[int, int] = {}
        """Process ids to numbers."""
        self._begun: dict[int, float] = {}
        """When each number was last started."""
        self._due = dict.fromkeys(range(len(children)), 0.0)
        self._pause = dict.fromkeys(range(len(children)), SHORTEST)

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, or until a child finds at its first start that it cannot; the exit code."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
        try:
            return self._run()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _run(self) -> int:
        while True:
            for number in [one for one, when in self._due.items() if when <= time.monotonic()]:
                self._start(number)
            found = signal.sigtimedwait(_WAITED, self._until_due())
            if found is not None and found.si_signo != signal.SIGCHLD:
                return self._end(0)
            for number, code in self._reaped():
                if code == EnvironmentFailed.exit_code and self._pause[number] == SHORTEST:
                    return self._end(code)
                self._again(number, code)

    def _until_due(self) -> float:
        return max(0.0, min(self._due.values(), default=60.0 + time.monotonic()) - time.monotonic())

    def _start(self, number: int) -> None:
        del self._due[number]
        self._begun[number] = time.monotonic()
        process = os.fork()
        if process == 0:
            _become(self._children[number])
        self._running[process] = number

    def _reaped(self) -> list[tuple[int, int]]:
        """Numbers and exit codes of those that died; minus the signal where it was one."""
        found = []
        for process in tuple(self._running):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                number = self._running.pop(process)
                self._ended(number)
                found.append((number, os.waitstatus_to_exitcode(status)))
        return found

    def _again(self, number: int, code: int) -> None:
        now = time.monotonic()
        pause = self._pause[number] if now - self._begun[number] < YOUNG else SHORTEST
        log.error("process %d ended with %d; it is started again in %.1f s", number, code, pause)
        self._due[number] = now + pause
        self._pause[number] = min(pause * 2, LONGEST)

    def _end(self, code: int) -> int:
        self._tell(signal.SIGTERM)
        latest = time.monotonic() + self._grace
        while self._running:
            found = signal.sigtimedwait(_WAITED, max(0.0, latest - time.monotonic()))
            if found is None:
                self._tell(signal.SIGKILL)
                latest = time.monotonic() + 1.0
            self._reaped()
        return code

    def _tell(self, number: int) -> None:
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)


def _become(child: Callable[[], int]) -> None:
    """What the forked process does; it never returns."""
    code = 1
    try:
        end_with_parent()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED)
        code = child()
    except XdsError as error:
        sys.stderr.write(f"{error}\n")
        code = error.exit_code
    except BaseException:
        log.exception("a process failed")
    finally:
        sys.stderr.flush()
        os._exit(code)
