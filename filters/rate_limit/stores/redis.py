"""Counters in Redis or Valkey, shared by many policy servers. One script decides, by the clock of Redis."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import NoScriptError, RedisClusterException, RedisError, ResponseError

from filters.rate_limit.engine.algorithms import Concurrency, FixedWindow
from filters.rate_limit.engine.decision import Figure, Hit, LimitDecision, Taken
from filters.rate_limit.engine.windows import SECOND
from filters.rate_limit.stores.circuit_breaker import Circuit
from filters.rate_limit.stores.redis_client import disconnect, follow, to_master
from filters.rate_limit.stores.redis_script import (
    CHARGE,
    DECIDE,
    GIVE_BACK,
    PREFIX,
    RELEASE,
    SCRIPT,
    SHA,
    Call,
    Script,
    stored,
    tag,
)
from filters.rate_limit.stores.silence import silence_timeout

DEADLINE = 0.1
"""Seconds that Redis may be silent while it has a pipeline to answer."""
OPENING = 0.2
"""Seconds for opening a connection, unless the deadline is longer."""
AT_ONCE = 64
"""Calls in one pipeline, so that Redis answers them long before the deadline."""
UNDER_WAY = 2
"""Pipelines to one server at the same time, so that we write and read one while Redis works on the other."""
WORTHWHILE = 32
"""So few calls are not divided between pipelines."""
MOST_WAITING = 16_384
"""Calls that wait for one server. Limits reject the requests of further decisions."""
_AWAY = (RedisError, RedisClusterException, OSError, TimeoutError, AttributeError)
"""The client raises AttributeError for a connection that it lost while another call used it."""
_NO_MASTER = (b"READONLY", b"NOREPLICAS")
"""Errors of a server that is a replica, or a master that has lost its replicas (`min-replicas-to-write`)."""
REMEMBERED = 10_000
"""Exhausted keys that are decided without Redis, each for at most a second."""


_Hits = TypeVar("_Hits", Hit, Taken)


class _Lane:
    """The calls to one server. Calls that arrive while pipelines are in progress are sent in the next pipeline.

    `opened` is the number of connections. `starting` is true if a task will send the waiting calls in this turn.
    """

    def __init__(self) -> None:
        self.waiting: deque[Call] = deque()
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
        self._script = Script()
        self._lanes: dict[str, _Lane] = {}
        self._circuit = Circuit(self.name, "redis", registry)
        self._exhausted: dict[tuple[str, int], tuple[int, int]] = {}
        self._loop = asyncio.get_running_loop()
        pool = getattr(client, "connection_pool", None)
        self._sentinels = pool if isinstance(pool, SentinelConnectionPool) else None
        self._following = self._loop.create_task(follow(self._sentinels)) if self._sentinels else None

    def decide(self, now: int, hits: Sequence[Hit]) -> LimitDecision | Awaitable[LimitDecision]:
        """Admit and count all, or count nothing. An exhausted key is remembered for at most a second."""
        known = self._remembered(now, hits)
        if known is not None:
            return known
        if not hits:
            return LimitDecision(True, 0, ())
        return self._decide_by_nodes(now, hits) if self._cluster else self._ask(DECIDE, now, hits, hits)

    async def _decide_by_nodes(self, now: int, hits: Sequence[Hit]) -> LimitDecision:
        """Ask for the hits of each hash tag in turn. If one is rejected, the others get back what they counted."""
        decided: list[tuple[list[Hit], LimitDecision]] = []
        for group in self._groups(hits):
            found = self._ask(DECIDE, now, group, hits)
            decision = found if isinstance(found, LimitDecision) else await found
            if decision.uncounted:
                return decision
            if not decision.admitted:
                await self._refund(now, decided)
                decided.append((group, decision))
                break
            decided.append((group, decision))
        figures = {
            hit.key: figure
            for group, decision in decided
            for hit, figure in zip(group, decision.figures, strict=False)
        }
        return LimitDecision(
            all(one.admitted for _, one in decided),
            min(one.now for _, one in decided),
            tuple(figures[hit.key] for hit in hits if hit.key in figures),
        )

    async def _refund(self, now: int, decided: Iterable[tuple[Sequence[Hit], LimitDecision]]) -> None:
        for group, decision in decided:
            slots = [hit for hit in group if isinstance(hit.limit, Concurrency)]
            taken = [
                Taken(hit.limit, hit.key, hit.cost, decision.now, figure.reset)
                for hit, figure in zip(group, decision.figures, strict=True)
                if hit.cost and not figure.short
            ]
            for waiting in (self.release(slots), self.give_back(now, taken)):
                if waiting is not None:
                    await waiting

    def charge(self, now: int, hits: Sequence[Hit]) -> Awaitable[Any] | None:
        """Count a cost that has occurred. If Redis does not answer, the count is lost, which is logged."""
        return self._run(CHARGE, now, hits)

    def give_back(self, now: int, taken: Sequence[Taken]) -> Awaitable[Any] | None:
        """Give back a part of what decisions took, before all later calls, each in its window only.

        Slots are released instead. If Redis does not answer, nothing is given back.
        """
        for one in taken:
            self._exhausted.pop((one.key, one.limit.amount), None)
        return self._run(GIVE_BACK, now, [one for one in taken if not isinstance(one.limit, Concurrency)])

    def release(self, hits: Sequence[Hit]) -> Awaitable[Any] | None:
        """Give slots back. If Redis does not answer, their leases end by themselves."""
        return self._run(RELEASE, 0, hits)

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
        tasks += [self._following] if self._following is not None else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await disconnect(self._client)

    async def _reset(self, prefix: str) -> int:
        plain = "".join(f"[{one}]" if one in "*?[" else one for one in prefix)
        keys = [key async for key in self._client.scan_iter(match=f"{PREFIX}*}}{plain}*", count=1000)]
        return sum([await self._client.delete(key) for key in keys])

    def _groups(self, hits: Sequence[_Hits]) -> list[list[_Hits]]:
        """The hits of each call. A cluster can count only keys of one hash tag together, any other Redis all keys."""
        if not self._cluster:
            return [list(hits)] if hits else []
        groups: dict[str, list[_Hits]] = {}
        for hit in hits:
            groups.setdefault(tag(hit.key), []).append(hit)
        return list(groups.values())

    def _run(self, operation: int, now: int, hits: Sequence[_Hits]) -> Awaitable[Any] | None:
        """Ask for an operation that has no result. Nobody needs to await it."""
        asked = [self._ask(operation, now, group, ()) for group in self._groups(hits)]
        waiting = [one for one in asked if not isinstance(one, LimitDecision)]
        if len(waiting) == 1:
            return waiting[0]
        return asyncio.gather(*waiting) if waiting else None

    def _ask(
        self, operation: int, now: int, hits: Sequence[Hit | Taken], asked: Sequence[Hit | Taken]
    ) -> LimitDecision | asyncio.Future[LimitDecision]:
        """Put a call into the lane of its server, unless the server is left alone after failures or is overloaded."""
        if self._circuit.is_open:
            return self._circuit.uncounted(now, asked)
        call = Call(operation, now, hits, asked, self._loop.create_future())
        return call.answer if self._wait(call) else self._circuit.overloaded(now, hits)

    def _wait(self, call: Call) -> bool:
        """Put a call into the lane of its server. In a cluster this is a node, if the slots are known.

        Returns False if too many decisions wait already.
        """
        name = ""
        if self._cluster and self._client.get_nodes():
            name = self._client.get_node_from_key(stored(call.hits[0].key)).name
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane()
        if len(lane.waiting) >= MOST_WAITING and call.operation == DECIDE:
            return False
        lane.waiting.append(call)
        self._start(name, lane)
        return True

    def _start(self, name: str, lane: _Lane) -> None:
        """Send the waiting calls at the end of this turn of the loop, unless enough pipelines are in progress."""
        if not lane.starting and len(lane.tasks) < UNDER_WAY:
            lane.starting = True
            lane.tasks.add(self._loop.create_task(self._serve(name, lane)))

    async def _serve(self, name: str, lane: _Lane) -> None:
        """Send calls until none waits. If a server fails, all calls that wait for it fail."""
        batch: list[Call] = []
        connection = None
        lane.starting = False
        try:
            if self._cluster and not name:
                await self._spread(lane)
            connection = await self._connected(lane)
            while batch := self._next(lane):
                if lane.waiting:
                    self._start(name, lane)
                if self._sentinels is not None:
                    await to_master(self._sentinels, connection, OPENING)
                await self._exchange(connection, batch)
                self._circuit.answered()
        except BaseException as error:
            lane.opened = 0
            unanswered = [call for call in (*batch, *lane.waiting) if not call.answer.done()]
            lane.waiting.clear()
            if not isinstance(error, _AWAY):
                for call in unanswered:
                    call.answer.cancel()
                raise
            self._circuit.failed(error)
            for call in unanswered:
                call.answered(self._circuit.uncounted(call.now, call.asked))
        finally:
            lane.tasks.difference_update({asyncio.current_task()})
            if connection is not None:
                await self._client.connection_pool.release(connection)

    async def _spread(self, lane: _Lane) -> None:
        """Put the calls that came before the slots of the cluster were known into the lanes of their nodes."""
        async with silence_timeout(max(self._deadline, OPENING)):
            await self._client.initialize()
        for _ in range(len(lane.waiting)):
            call = lane.waiting.popleft()
            if not self._wait(call):
                call.answered(self._circuit.overloaded(call.now, call.hits))

    def _next(self, lane: _Lane) -> list[Call]:
        """The calls of the next pipeline. Calls on keys that are known to be exhausted are decided here."""
        batch: list[Call] = []
        share = min(AT_ONCE, max(WORTHWHILE, -(-len(lane.waiting) // UNDER_WAY)))
        while lane.waiting and len(batch) < share:
            call = lane.waiting.popleft()
            known = self._remembered(call.now, call.hits) if call.operation == DECIDE else None
            if known is None:
                batch.append(call)
            else:
                call.answered(known)
        return batch

    def _answered(self, calls: Iterable[Call], answer: Sequence[Any]) -> bool:
        """Answer the calls of one command. Returns True if the server cannot count, because it is no master any more."""
        now, at, demoted = answer[0], 1, False
        for call in calls:
            status, at = answer[at], at + 1
            if type(status) is not int:
                demoted = demoted or any(one in status for one in _NO_MASTER)
                self._refused((call,), ResponseError(status.decode()))
            elif call.operation != DECIDE:
                call.answered(_DONE)
            else:
                figures = []
                for hit in call.hits:
                    room, reset, wait = answer[at : at + 3]
                    at += 3
                    short = wait >= 0
                    if short:
                        self._remember(call.now, hit, room, wait)
                    figures.append(Figure(hit[0], room, reset, wait if short else 0, short))
                call.answered(LimitDecision(status == 1, now, tuple(figures)))
        return demoted

    def _refused(self, calls: Iterable[Call], error: ResponseError) -> None:
        """Answer calls that Redis could not count."""
        self._circuit.refused(error)
        for call in calls:
            call.answered(self._circuit.uncounted(call.now, call.asked))

    async def _exchange(self, connection: Any, batch: Sequence[Call]) -> None:
        """Send one pipeline and answer its calls. Raises the client's errors.

        One command decides all. A node of a cluster gets a command for each call, because their keys differ in the slot.
        """
        parts = [(call,) for call in batch] if self._cluster else [tuple(batch)]
        answers = await self._send(connection, [self._script.command(one, "EVALSHA", SHA) for one in parts])
        unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:  # the server is new or was flushed: the first command loads the script
            commands = [self._script.command(parts[at], "EVALSHA", SHA) for at in unknown]
            commands[0] = self._script.command(parts[unknown[0]], "EVAL", SCRIPT)
            for at, answer in zip(unknown, await self._send(connection, commands), strict=True):
                answers[at] = answer
        for calls, answer in zip(parts, answers, strict=True):
            if isinstance(answer, ResponseError):
                self._refused(calls, answer)
            elif self._answered(calls, answer) and connection is not None:
                await connection.disconnect()  # the next pipeline asks the Sentinels for the master again

    async def _connected(self, lane: _Lane) -> Any:
        """A connection that is open, so that the next pipeline takes only one round trip.

        The client keeps the connections to the nodes of a cluster itself, so the result is None then.
        """
        async with silence_timeout(max(self._deadline, OPENING)):
            if not self._cluster:
                return await self._client.connection_pool.get_connection()
            if lane.waiting and lane.opened < len(lane.tasks):
                await self._client.initialize()  # again, if a node was lost
                node = self._client.get_node_from_key(stored(lane.waiting[0].hits[0].key))
                await self._client.execute_command("PING", target_nodes=[node])
                lane.opened += 1
        return None

    async def _send(self, connection: Any, commands: Sequence[Sequence[str | bytes | int]]) -> list[Any]:
        """The answers to commands. Raises the client's errors, except those that Redis itself answers with."""
        async with silence_timeout(self._deadline):
            if connection is not None:
                return [await _answer_on(connection, command) for command in commands]
            pipeline = self._client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, ResponseError):
                raise answer
        return answers

    def _remembered(self, now: int, hits: Sequence[Hit | Taken]) -> LimitDecision | None:
        if not self._exhausted:
            return None
        figures = []
        for hit in hits:
            if not hit.cost and not hit.limit.least:
                continue  # passes even if nothing is left
            known = self._exhausted.get((hit.key, hit.limit.amount))
            if known is not None and now < known[0]:
                figures.append(Figure(hit.limit, 0, known[1], max(SECOND, known[1] - now), True))
        return LimitDecision(False, now, tuple(figures)) if figures else None

    def _remember(self, now: int, hit: Hit | Taken, room: int, wait: int) -> None:
        """Remember only windows that stay exhausted until they end, for every cost."""
        if room or not isinstance(hit.limit, FixedWindow) or hit.limit.shadow:
            return
        if len(self._exhausted) >= REMEMBERED:
            self._exhausted.clear()
        self._exhausted[hit.key, hit.limit.amount] = (now + min(wait, SECOND), now + wait)


_DONE = LimitDecision(True, 0, ())


async def _answer_on(connection: Any, command: Sequence[str | bytes | int]) -> Any:
    """The answer to a command. Raises the client's errors, and returns an error that Redis answers with.

    The client would take a connection from its pool for each command, which takes longer than the command.
    """
    packed = connection.pack_command(*command)

    async def ask() -> Any:
        await connection.send_packed_command(packed)
        return await connection.read_response()

    try:
        return await connection.retry.call_with_retry(ask, lambda _error: connection.disconnect())
    except ResponseError as error:
        return error
