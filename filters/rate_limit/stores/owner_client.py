"""The client of the owner process, which has the counters of all workers.

All calls of a worker in one turn of its event loop are one write.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from prometheus_client import CollectorRegistry

from filters.rate_limit.engine.algorithms import Counter
from filters.rate_limit.engine.decision import Hit, LimitDecision, Taken
from filters.rate_limit.stores import owner_protocol
from filters.rate_limit.stores.circuit_breaker import PAUSE, Circuit
from filters.rate_limit.stores.silence import SilenceTimer

DEADLINE = 0.4
"""Seconds, less than Envoy waits. On one machine only a busy processor takes that long, because the end of an owner
process is noticed at once."""
AT_ONCE = 256
"""Calls in one frame, so that the owner answers some of many before the deadline."""
AGAIN = 0.05
"""Seconds between two attempts to connect."""
PATIENCE = 5.0
"""Seconds of silence after which an operator's call fails."""


class _Call(NamedTuple):
    operation: int
    now: int
    hits: Sequence[Hit | Taken]
    waiting: asyncio.Future[LimitDecision] | None


class _Turn:
    """The calls of one turn. A turn stays in the queue after its deadline, because answers come in order."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls: list[_Call] = []


class OwnerStore:
    """Counters behind the Unix socket at `path`. Create it in the event loop that uses it.

    `deadline` is the time in seconds that the owner may be silent while it has calls to answer. It measures only the
    owner's time. Within the deadline, unsent calls are sent as soon as an owner connects, and calls that an owner did
    not answer before it ended are sent to the next owner, which has no counters yet. After the deadline the circuit
    breaker decides; after several failures it makes no calls for `pause` seconds. `patience` is the time in seconds
    that an operator waits for each part of the owner's answer.
    """

    name = "owner"

    def __init__(
        self,
        path: Path,
        registry: CollectorRegistry,
        deadline: float = DEADLINE,
        *,
        pause: float = PAUSE,
        patience: float = PATIENCE,
    ) -> None:
        self._path = path
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._circuit = Circuit(self.name, "the owner process", registry, pause=pause)
        self._patience = patience
        self._connection: _Connection | None = None
        self._turn: _Turn | None = None
        self._unsent: deque[_Turn] = deque()
        self._sent: deque[_Turn] = deque()
        self._watch = SilenceTimer(self._late)
        self._connecting = self._loop.create_task(self._connect())

    def decide(self, now: int, hits: Sequence[Hit]) -> LimitDecision | Awaitable[LimitDecision]:
        """Admit and count all by the owner's clock, or count nothing."""
        if self._circuit.is_open:
            return self._circuit.uncounted(now, hits)
        waiting: asyncio.Future[LimitDecision] = self._loop.create_future()
        self._enqueue(_Call(owner_protocol.DECIDE, now, hits, waiting))
        return waiting

    def charge(self, now: int, hits: Sequence[Hit]) -> None:
        """Count a cost that has occurred, before all later calls. If the owner does not answer, the count is lost."""
        self._notify(owner_protocol.CHARGE, now, hits)

    def give_back(self, now: int, taken: Sequence[Taken]) -> None:
        """Give back a part of what decisions took, before all later calls, by the owner's clock.

        If the owner does not answer, it is not given back.
        """
        self._notify(owner_protocol.GIVE_BACK, now, taken)

    def release(self, hits: Sequence[Hit]) -> None:
        """Give slots back. An owner that ended has lost them already."""
        self._notify(owner_protocol.RELEASE, 0, hits)

    def reset(self, prefix: str) -> int:
        """Remove the counters whose key begins with `prefix`.

        Call it in another thread than the loop's. Raises OSError.
        """
        (count,) = self._operate(owner_protocol.RESET, prefix)
        return int(count)

    def listed(self, prefix: str = "") -> tuple[int, list[tuple[str, Counter]]]:
        """The result of `Memory.listed`. Call it in another thread than the loop's. Raises OSError."""
        *found, uncounted = self._operate(owner_protocol.LIST, prefix)
        return int(uncounted), [one for piece in found for one in owner_protocol.unlisted(piece)]

    async def close(self) -> None:
        """Close the connection to the owner."""
        self._connecting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._connecting
        self._watch.end()

    def _notify(self, operation: int, now: int, hits: Sequence[Hit | Taken]) -> None:
        if self._circuit.is_open:
            self._circuit.uncounted(now, ())
        else:
            self._enqueue(_Call(operation, now, hits, None))

    def _enqueue(self, call: _Call) -> None:
        turn = self._turn
        if turn is None or len(turn.calls) >= AT_ONCE:
            if turn is None:
                self._loop.call_soon(self._send)
            turn = self._turn = _Turn()
            self._unsent.append(turn)
        turn.calls.append(call)

    def _send(self) -> None:
        self._turn = None
        if self._unsent:
            self._watch.begin(self._deadline)
        if self._connection is not None and self._unsent:
            self._connection.send(self._unsent)
            self._sent += self._unsent
            self._unsent.clear()

    async def _connect(self) -> None:
        while True:
            connection = _Connection(self)
            transport: asyncio.BaseTransport | None = None
            try:
                transport, _ = await self._loop.create_unix_connection(lambda: connection, str(self._path))  # noqa: B023 - called at once
                await connection.ended.wait()
            except OSError:
                await asyncio.sleep(AGAIN)  # no owner listens yet
            finally:
                if transport is not None:
                    transport.close()

    def greeted(self, connection: _Connection) -> None:
        """An owner sent its greeting on `connection`."""
        self._connection = connection
        self._circuit.answered()
        self._send()

    def answered(self, now: int, answers: Sequence[Sequence[Any]]) -> None:
        """The owner answered the first turn that was sent to it."""
        self._circuit.answered()
        self._watch.heard()
        figures = iter(answers)
        for call in self._sent.popleft().calls:
            if call.operation == owner_protocol.DECIDE:
                figure = next(figures)
                if call.waiting is not None and not call.waiting.done():
                    call.waiting.set_result(owner_protocol.decision(call.hits, now, figure))
        if not self._sent and not self._unsent:
            self._watch.end()

    def lost(self, connection: _Connection) -> None:
        """The owner, or the connection to it, ended."""
        if self._connection is connection:
            self._connection = None
            self._unsent.extendleft(turn for turn in reversed(self._sent) if turn.calls)
            self._sent.clear()

    def _late(self) -> None:
        """The owner was silent for too long. Each call that it did not answer is a failure."""
        late, self._turn = [*self._sent, *self._unsent], None
        self._unsent.clear()
        for turn in late:
            calls, turn.calls = turn.calls, []
            for call in calls:
                self._circuit.failed(TimeoutError("no answer in time"))
                decision = self._circuit.uncounted(call.now, call.hits)
                if call.waiting is not None and not call.waiting.done():
                    call.waiting.set_result(decision)

    def _operate(self, operation: int, prefix: str) -> Iterator[Any]:
        """The values of an answer to an operator, on its own connection. The last value is a number."""
        frames = owner_protocol.Frames()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(self._patience)
            connection.connect(str(self._path))
            connection.sendall(owner_protocol.frame((operation, prefix)))
            while data := connection.recv(1 << 18):
                for value in frames.receive(data):
                    if value != owner_protocol.HELLO:
                        yield value
                    if type(value) is int:
                        return
        raise ConnectionError("the owner process ended")


class _Connection(asyncio.Protocol):
    """A connection to one owner, from its greeting on."""

    def __init__(self, store: OwnerStore) -> None:
        self.ended = asyncio.Event()
        self._store = store
        self._frames = owner_protocol.Frames()
        self._asking = owner_protocol.Asking()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _error: Exception | None) -> None:
        self._store.lost(self)
        self.ended.set()

    def data_received(self, data: bytes) -> None:
        for value in self._frames.receive(data):
            if value == owner_protocol.HELLO:
                self._store.greeted(self)
            else:
                self._store.answered(*value)

    def send(self, turns: Iterable[_Turn]) -> None:
        """Send each turn as a frame."""
        frame = self._asking.frame
        self._transport.write(
            b"".join([frame((call.operation, call.hits) for call in turn.calls) for turn in turns])
        )
