"""The engine processes of a policy server: requests wait in one queue, and the next free process takes the first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import weakref
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass
from pathlib import Path

from filters.waf.frames import LENGTH, Inquiry, Load, Verdict, answered, frame
from filters.waf.names import WafSource

log = logging.getLogger(__name__)

PROCESSES = 2
MOST_WAITING = 1_024
"""Requests that wait for a process. More cannot be inspected."""
STARTING = 30.0
"""Seconds in which a process has to load the rules."""
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Seconds between the end of a process and its restart. The time doubles with each that answers nothing."""


class EngineError(Exception):
    """A request could not be inspected."""


class Profile:
    """The settings of some routes. The engines know them as long as this object lives."""

    __slots__ = ("__weakref__", "name", "source")

    def __init__(self, name: str, source: WafSource) -> None:
        self.name, self.source = name, source


@dataclass(slots=True, eq=False)
class _Job:
    inquiry: Inquiry
    until: float
    future: asyncio.Future[Verdict]


class _Child:
    """One engine process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.generation = -1
        self.ended = asyncio.create_task(process.wait())

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def ask(self, message: Load | Inquiry, seconds: float) -> Verdict:
        """Send a message and read the response. Raises EngineError; the process is of no use after that."""
        try:
            async with asyncio.timeout(seconds):
                return await self._ask(message)
        except TimeoutError:
            raise EngineError("an engine process took too long") from None
        except (OSError, asyncio.IncompleteReadError, ValueError):
            raise EngineError("an engine process has ended") from None

    async def _ask(self, message: Load | Inquiry) -> Verdict:
        source, target = self._process.stdout, self._process.stdin
        assert source is not None
        assert target is not None
        target.write(frame(message))
        await target.drain()
        length = await source.readexactly(LENGTH)
        return answered.decode(await source.readexactly(int.from_bytes(length, "big")))

    async def end(self) -> None:
        """End the process at once: it has nothing to finish."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self.ended


class Engines:
    """The engine processes, started with the first profile. `crs` is the folder of the rules, `loop` the loop of requests."""

    def __init__(self, crs: Path, loop: asyncio.AbstractEventLoop, processes: int = PROCESSES) -> None:
        self._crs = crs
        self._loop = loop
        self._count = processes
        self._profiles: weakref.WeakValueDictionary[str, Profile] = weakref.WeakValueDictionary()
        self._generation = 0
        """The number of changes of the profiles. A process that has loaded an older one loads first."""
        self._queue: asyncio.Queue[_Job | None] = asyncio.Queue()
        """None wakes a process, so that it loads profiles before a request needs them."""
        self._workers: list[asyncio.Task[None]] = []

    def profile(self, name: str, source: WafSource) -> Profile:
        """Make a profile known. It may be called in any thread."""
        made = Profile(name, source)
        self._loop.call_soon_threadsafe(self._know, made)
        return made

    def _know(self, profile: Profile) -> None:
        known = profile.name in self._profiles
        self._profiles[profile.name] = profile
        if known:
            return
        self._generation += 1
        if not self._workers:
            self._workers = [asyncio.create_task(self._work()) for _ in range(self._count)]
        if self._queue.empty():
            for _ in range(self._count):
                self._queue.put_nowait(None)

    async def inspect(self, profile: Profile, inquiry: Inquiry) -> Verdict:
        """Have a request inspected within the time of its profile. Raises EngineError."""
        self._know(profile)  # it may be here before the loop has learnt of it
        if self._queue.qsize() >= MOST_WAITING:
            raise EngineError("too many requests wait for an engine process")
        loop = self._loop
        job = _Job(inquiry, loop.time() + profile.source.timeout, loop.create_future())
        self._queue.put_nowait(job)
        try:
            async with asyncio.timeout_at(job.until):
                verdict = await job.future
        except TimeoutError:
            raise EngineError("no engine process responded in time") from None
        if verdict.error:
            raise EngineError(verdict.error)
        return verdict

    async def close(self) -> None:
        """End the processes."""
        for one in self._workers:
            one.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._workers = []

    async def _work(self) -> None:
        """Keep one process running, and give it requests."""
        wait = FIRST_WAIT
        while True:
            child = None
            try:
                child = await self._started()
                while True:
                    job = await self._next(child)
                    await self._serve(child, job)
                    wait = FIRST_WAIT
            except (EngineError, OSError) as error:
                log.error("an engine of the web application firewall is started again error=%s", error)
            finally:
                if child is not None:
                    await asyncio.shield(child.end())
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    async def _next(self, child: _Child) -> _Job | None:
        """The next request. Raises EngineError if the process ends before one comes, so that it is started again at once."""
        if not self._queue.empty():
            return self._queue.get_nowait()
        getting = asyncio.create_task(self._queue.get())
        try:
            await asyncio.wait((getting, child.ended), return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                return getting.result()
            raise EngineError("an engine process has ended")
        finally:
            getting.cancel()

    async def _started(self) -> _Child:
        command = (sys.executable, "-m", "filters.waf.engine_process", str(self._crs))
        # the XML parser writes parts of bodies to stderr
        child = _Child(
            await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        )
        try:
            await self._load(child)
        except BaseException:
            await child.end()
            raise
        return child

    async def _load(self, child: _Child) -> None:
        generation = self._generation
        profiles = {name: one.source for name, one in self._profiles.items()}
        verdict = await child.ask(Load(profiles), STARTING)
        if verdict.error:
            raise EngineError(verdict.error)
        child.generation = generation

    async def _serve(self, child: _Child, job: _Job | None) -> None:
        """Answer one request. Raises EngineError if the process is of no use any more."""
        if not child.alive:
            if job is not None:
                self._queue.put_nowait(job)
            raise EngineError("an engine process has ended")
        if child.generation != self._generation:
            await self._load(child)
        left = 0.0 if job is None else job.until - self._loop.time()
        if job is None or job.future.done() or left <= 0:
            return
        try:
            verdict = await child.ask(job.inquiry, left)
        except EngineError as error:
            _answer(job, Verdict(error=str(error)))
            raise
        _answer(job, verdict)


def _answer(job: _Job, verdict: Verdict) -> None:
    if not job.future.done():
        job.future.set_result(verdict)
