"""Counters in Redis or Valkey, shared by many policy servers. One script decides, by the clock of Redis."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import NoScriptError, RedisClusterException, RedisError, ResponseError

from filters.rate_limit.engine.algorithms import Concurrency, FixedWindow, TokenBucket
from filters.rate_limit.engine.decision import Figure, Hit, LimitDecision
from filters.rate_limit.engine.windows import SECOND, end_of, has_even_windows
from filters.rate_limit.stores.circuit_breaker import Circuit
from filters.rate_limit.stores.silence import silence_timeout

SCRIPT = resources.files(__package__).joinpath("limits.lua").read_text()
_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
PREFIX = "xds:"
DEADLINE = 0.1
"""Seconds that Redis may be silent while it has a pipeline to answer."""
OPENING = 0.2
"""Seconds for opening a connection, unless the deadline is longer."""
AT_ONCE = 64
"""Calls in one pipeline, so that Redis answers them long before the deadline."""
UNDER_WAY = 2
"""Pipelines to one server at the same time, so that we write and read one while Redis works on the other."""
WORTHWHILE = 8
"""So few calls are not divided between pipelines."""
MOST_WAITING = 16_384
"""Calls that wait for one server. Limits reject the requests of further decisions."""
_AWAY = (RedisError, RedisClusterException, OSError, TimeoutError, AttributeError)
"""The client raises AttributeError for a connection that it lost while another call used it."""
REMEMBERED = 10_000
"""Exhausted keys that are decided without Redis, each for at most a second."""


def connect(url: str) -> Any:
    """A client of ``redis://``, ``rediss://``, ``unix://``, ``redis+cluster://HOST:PORT[,HOST:PORT]`` or
    ``redis+sentinel://HOST:PORT[,HOST:PORT]/NAME``. Raises ValueError for another URL."""
    scheme, parts = url.partition("://")[0], urlsplit(url)
    options: Any = {"socket_connect_timeout": 1.0, "socket_keepalive": True}
    if scheme == "redis+cluster":
        nodes = [ClusterNode(host, port) for host, port in _addresses(parts.netloc)]
        return RedisCluster(startup_nodes=nodes, **options)
    if scheme == "redis+sentinel":
        name = parts.path.strip("/")
        if not name:
            raise ValueError(
                f"{url}: the name of the master is missing, as in redis+sentinel://HOST:PORT/NAME"
            )
        sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
            _addresses(parts.netloc), sentinel_kwargs=options, **options
        )
        master: Any = sentinel.master_for(name)
        return master
    return Redis.from_url(url, **options)


def _addresses(netloc: str) -> list[tuple[str, int]]:
    found = [one.rpartition(":") for one in netloc.split(",")]
    return [(host.strip("[]"), int(port)) for host, _, port in found]


class _CrowdError(ConnectionError):
    """Too many calls wait for a server."""


class _Call(NamedTuple):
    """One call of the script. Its answer is the script's result, or a decision that needed no call."""

    operation: str
    now: int
    hits: Sequence[Hit]
    answer: asyncio.Future[list[int] | LimitDecision]

    def command(self, *script: str) -> tuple[str | int, ...]:
        """The command that runs a `script`: EVAL with its text, or EVALSHA with its hash."""
        keys = [stored(hit.key) for hit in self.hits]
        values = (value for hit in self.hits for value in _arguments(hit, self.now))
        return (*script, len(keys), *keys, self.operation, *values)

    def answered(self, answer: Any) -> None:
        """Set the answer, unless the caller has given up."""
        if self.answer.done():
            return
        if isinstance(answer, BaseException):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


class _Lane:
    """The calls to one server. Calls that arrive while pipelines are in progress are sent in the next pipeline.

    `opened` is the number of connections. `starting` is true if a task will send the waiting calls in this turn.
    """

    def __init__(self) -> None:
        self.waiting: deque[_Call] = deque()
        self.opened = 0
        self.starting = False
        self.tasks: set[asyncio.Task[None]] = set()


class RedisStore:
    """Counters behind `client`, a client of redis.asyncio. `deadline` is in seconds, and measures only Redis's time.

    Create it in the event loop that uses it. If no answer comes in time, the circuit breaker decides.
    """

    name = "redis"

    def __init__(self, client: Any, registry: CollectorRegistry, deadline: float = DEADLINE) -> None:
        self._client = client
        self._deadline = deadline
        self._cluster = isinstance(client, RedisCluster)
        self._lanes: dict[str, _Lane] = {}
        self._circuit = Circuit(self.name, "redis", registry)
        self._exhausted: dict[tuple[str, int], tuple[int, int]] = {}
        self._loop = asyncio.get_running_loop()

    async def decide(self, now: int, hits: Sequence[Hit]) -> LimitDecision:
        """Admit and count all, or count nothing. An exhausted key is remembered for at most a second."""
        known = self._remembered(now, hits)
        if known is not None:
            return known
        groups = self._groups(hits)
        answers: list[list[int]] = []
        try:
            for group in groups:
                answer = await self._result("decide", now, group)
                if isinstance(answer, LimitDecision):
                    await self._refund(now, groups[: len(answers)])
                    return answer
                answers.append(answer)
                if not answer[1]:
                    await self._refund(now, groups[: len(answers) - 1])
                    break
        except _AWAY as error:
            return self._without_counters(now, hits, error)
        decision = _decision(groups, answers)
        self._remember(now, hits, groups, decision)
        return decision

    async def _refund(self, now: int, groups: Iterable[Sequence[Hit]]) -> None:
        for group in groups:
            await self._result("refund", now, [hit._replace(cost=-hit.cost) for hit in group if hit.cost])

    async def charge(self, now: int, hits: Sequence[Hit]) -> None:
        """Count a cost that has occurred. If Redis does not answer, the count is lost, which is logged."""
        await self._run("charge", now, hits)

    async def release(self, hits: Sequence[Hit]) -> None:
        """Give slots back. If Redis does not answer, their leases end by themselves."""
        await self._run("release", 0, hits)

    def reset(self, prefix: str) -> int:
        """Remove the counters whose key begins with `prefix`.

        Call it in another thread than the loop's. Raises OSError.
        """
        self._exhausted.clear()
        try:
            return asyncio.run_coroutine_threadsafe(self._reset(prefix), self._loop).result(30)
        except _AWAY as error:
            raise ConnectionError(f"redis does not answer: {str(error) or type(error).__name__}") from None

    async def close(self) -> None:
        """Close all connections. Waiting calls are cancelled."""
        tasks = [task for lane in self._lanes.values() for task in lane.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()
        pool = getattr(self._client, "connection_pool", None)
        if pool is not None:
            await pool.disconnect(inuse_connections=True)
        for sentinel in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
            await sentinel.aclose()

    async def _reset(self, prefix: str) -> int:
        plain = "".join(f"[{one}]" if one in "*?[" else one for one in prefix)
        keys = [key async for key in self._client.scan_iter(match=f"{PREFIX}*}}{plain}*", count=1000)]
        return sum([await self._client.delete(key) for key in keys])

    def _groups(self, hits: Sequence[Hit]) -> list[list[Hit]]:
        """The hits of each call. A cluster can count only keys of one hash tag together, any other Redis all keys."""
        if not self._cluster:
            return [list(hits)] if hits else []
        groups: dict[str, list[Hit]] = {}
        for hit in hits:
            groups.setdefault(tag(hit.key), []).append(hit)
        return list(groups.values())

    async def _run(self, operation: str, now: int, hits: Sequence[Hit]) -> None:
        try:
            for group in self._groups(hits):
                await self._result(operation, now, group)
        except _AWAY as error:
            self._without_counters(now, (), error)

    def _without_counters(self, now: int, hits: Sequence[Hit], error: BaseException) -> LimitDecision:
        if isinstance(error, _CrowdError):
            return self._circuit.overloaded(now, hits)
        return self._circuit.uncounted(now, hits)

    async def _result(self, operation: str, now: int, hits: Sequence[Hit]) -> list[int] | LimitDecision:
        """The answer to one call.

        Raises the client's errors, ConnectionError during a pause after failures, and _CrowdError if too many calls
        wait.
        """
        if not hits:
            return []
        if self._circuit.is_open:
            raise ConnectionError("left alone after failures")
        call = _Call(operation, now, hits, self._loop.create_future())
        self._wait(call)
        return await call.answer

    def _wait(self, call: _Call) -> None:
        """Put a call into the lane of its server. In a cluster this is a node, if the slots are known."""
        name = ""
        if self._cluster and self._client.get_nodes():
            name = self._client.get_node_from_key(stored(call.hits[0].key)).name
        lane = self._lanes.setdefault(name, _Lane())
        if len(lane.waiting) >= MOST_WAITING and call.operation == "decide":
            raise _CrowdError
        lane.waiting.append(call)
        self._start(name, lane)

    def _start(self, name: str, lane: _Lane) -> None:
        """Send the waiting calls at the end of this turn of the loop, unless enough pipelines are in progress."""
        if not lane.starting and len(lane.tasks) < UNDER_WAY:
            lane.starting = True
            lane.tasks.add(self._loop.create_task(self._serve(name, lane)))

    async def _serve(self, name: str, lane: _Lane) -> None:
        """Send calls until none waits. If a server fails, all calls that wait for it fail."""
        batch: list[_Call] = []
        lane.starting = False
        try:
            if self._cluster and not name:
                async with silence_timeout(max(self._deadline, OPENING)):
                    await self._client.initialize()
                for _ in range(len(lane.waiting)):
                    self._wait(lane.waiting[0])
                    lane.waiting.popleft()
            while batch := self._next(lane):
                if lane.waiting:
                    self._start(name, lane)
                answers = await self._exchange(lane, batch)
                self._circuit.answered()
                for call, answer in zip(batch, answers, strict=True):
                    if isinstance(answer, ResponseError):
                        self._circuit.refused(answer)
                    call.answered(answer)
        except BaseException as error:
            lane.opened = 0
            for call in (*batch, *lane.waiting):
                call.answered(error)
            lane.waiting.clear()
            if not isinstance(error, _AWAY):
                raise
            self._circuit.failed(error)
        finally:
            lane.tasks.difference_update({asyncio.current_task()})

    def _next(self, lane: _Lane) -> list[_Call]:
        """The calls of the next pipeline. Calls on keys that are known to be exhausted are decided here."""
        batch: list[_Call] = []
        share = min(AT_ONCE, max(WORTHWHILE, -(-len(lane.waiting) // UNDER_WAY)))
        while lane.waiting and len(batch) < share:
            call = lane.waiting.popleft()
            known = self._remembered(call.now, call.hits) if call.operation == "decide" else None
            if known is None:
                batch.append(call)
            else:
                call.answered(known)
        return batch

    async def _exchange(self, lane: _Lane, batch: Sequence[_Call]) -> list[Any]:
        """The answers to one pipeline; some may be a ResponseError. Raises the client's errors."""
        if lane.opened < len(lane.tasks):
            async with silence_timeout(max(self._deadline, OPENING)):
                await self._open(batch[0])
            lane.opened += 1
        answers = await self._pipeline([one.command("EVALSHA", _SHA) for one in batch])
        unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:  # the server is new or was flushed: the first command loads the script
            commands = [batch[at].command("EVALSHA", _SHA) for at in unknown]
            commands[0] = batch[unknown[0]].command("EVAL", SCRIPT)
            for at, answer in zip(unknown, await self._pipeline(commands), strict=True):
                answers[at] = answer
        return answers

    async def _open(self, call: _Call) -> None:
        """Open a connection, so that the next pipeline takes only one round trip."""
        if self._cluster:
            await self._client.initialize()  # again, if a node was lost
            node = self._client.get_node_from_key(stored(call.hits[0].key))
            await self._client.execute_command("PING", target_nodes=[node])
        else:
            await self._client.execute_command("PING")

    async def _pipeline(self, commands: Iterable[Sequence[str | int]]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        async with silence_timeout(self._deadline):
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, ResponseError):
                raise answer
        return answers

    def _remembered(self, now: int, hits: Sequence[Hit]) -> LimitDecision | None:
        figures = []
        for hit in hits:
            if not hit.cost and not hit.limit.least:
                continue  # passes even if nothing is left
            known = self._exhausted.get((hit.key, hit.limit.amount))
            if known is not None and now < known[0]:
                figures.append(Figure(hit.limit, 0, known[1], max(SECOND, known[1] - now), True))
        return LimitDecision(False, now, tuple(figures)) if figures else None

    def _remember(
        self, now: int, hits: Sequence[Hit], groups: Iterable[Iterable[Hit]], decision: LimitDecision
    ) -> None:
        """Remember only windows that stay exhausted until they end, for every cost."""
        if len(self._exhausted) >= REMEMBERED:
            self._exhausted.clear()
        ordered = [hit for group in groups for hit in group]
        for hit, figure in zip(ordered, decision.figures, strict=False):
            if (
                figure.short
                and not figure.remaining
                and isinstance(hit.limit, FixedWindow)
                and not hit.limit.shadow
            ):
                until = now + min(figure.wait, SECOND)
                self._exhausted[hit.key, hit.limit.amount] = (until, now + figure.wait)


def tag(key: str) -> str:
    """The part of a key that identifies the client, so that the keys of one client share a slot of a cluster."""
    return "|".join(part for part in key.split("|") if "=" in part)


def stored(key: str) -> str:
    """The key in Redis."""
    return f"{PREFIX}{{{tag(key)}}}{key}"


def _arguments(hit: Hit, now: int) -> tuple[str | int, ...]:
    limit = hit.limit
    return (
        limit.kind,
        limit.amount,
        limit.length,
        hit.cost,
        limit.burst if isinstance(limit, TokenBucket) else 0,
        int(limit.shadow),
        limit.lease if isinstance(limit, Concurrency) else 0,
        hit.lease,
        _ends(limit, now) if isinstance(limit, FixedWindow) else "",
        limit.least,
    )


def _ends(limit: FixedWindow, now: int) -> str:
    """The ends of the present window and of its neighbours. The clock of Redis selects one."""
    if limit.rolling:
        return "rolling"
    if has_even_windows(limit.per, limit.zone):
        return "utc"
    first = end_of(now - SECOND * 60, limit.per, limit.zone)
    second = end_of(first, limit.per, limit.zone)
    return f"{first},{second},{end_of(second, limit.per, limit.zone)}"


def _decision(groups: Sequence[Sequence[Hit]], answers: Sequence[Sequence[int]]) -> LimitDecision:
    figures = []
    for group, answer in zip(groups, answers, strict=False):
        for number, hit in enumerate(group):
            room, reset, wait, short = answer[2 + 4 * number : 6 + 4 * number]
            figures.append(Figure(hit.limit, room, reset, wait, bool(short)))
    admitted = all(answer[1] for answer in answers)
    return LimitDecision(admitted, answers[-1][0] if answers else 0, tuple(figures))
