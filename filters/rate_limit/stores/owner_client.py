"""Counters of the one owner of all workers' counters: what a worker asks in one turn of its loop is one write."""

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
from filters.rate_limit.engine.decision import Decision, Hit
from filters.rate_limit.stores import owner_protocol
from filters.rate_limit.stores.circuit_breaker import PAUSE, Circuit
from filters.rate_limit.stores.silence import SilenceTimer

DEADLINE = 0.4
"""Seconds, less than Envoy waits; on one machine only a processor that is not to be had takes that long, and an owner
that dies is known at once."""
AT_ONCE = 256
"""Questions in one frame, so that the owner answers some of many before the deadline."""
AGAIN = 0.05
"""Seconds between two attempts to connect."""
PATIENCE = 5.0
"""Seconds of silence after which an operator waits no longer."""


class _Question(NamedTuple):
    operation: int
    now: int
    hits: Sequence[Hit]
    waiting: asyncio.Future[Decision] | None


class _Turn:
    """What was asked in one turn. It keeps its place among the answers when its time is over."""

    __slots__ = ("questions",)

    def __init__(self) -> None:
        self.questions: list[_Question] = []


class OwnerStore:
    """Counters behind the Unix socket at `path`. To be made in the event loop that uses it.

    `deadline` is the time in seconds that the owner may be silent while it has questions to answer, and measures the
    owner alone. What could not be sent is sent as soon as an owner is there, and what an owner did not answer before it
    ended is asked again of the next one, which has no counters yet; both within the deadline. After that the circuit
    decides: after several failures it asks nobody for `pause` seconds. `patience` is how many seconds an operator waits
    for the owner's next word.
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

    def decide(self, now: int, hits: Sequence[Hit]) -> Decision | Awaitable[Decision]:
        """Admit and count all by the owner's clock, or count nothing."""
        if self._circuit.left_alone:
            return self._circuit.uncounted(now, hits)
        waiting: asyncio.Future[Decision] = self._loop.create_future()
        self._ask(_Question(owner_protocol.DECIDE, now, hits, waiting))
        return waiting

    def charge(self, now: int, hits: Sequence[Hit]) -> None:
        """Count what has happened, before all that is asked later. Where the owner is away it is lost."""
        self._tell(owner_protocol.CHARGE, now, hits)

    def release(self, hits: Sequence[Hit]) -> None:
        """Give slots back; where the owner is away it has lost them."""
        self._tell(owner_protocol.RELEASE, 0, hits)

    def reset(self, prefix: str) -> int:
        """Forget the counters whose key begins with `prefix`. Called in any thread but the loop's; raises OSError."""
        (count,) = self._operate(owner_protocol.RESET, prefix)
        return int(count)

    def listed(self, prefix: str = "") -> tuple[int, list[tuple[str, Counter]]]:
        """What `Memory.listed` says. Called in another thread; raises OSError."""
        *found, uncounted = self._operate(owner_protocol.LIST, prefix)
        return int(uncounted), [one for piece in found for one in owner_protocol.unlisted(piece)]

    async def close(self) -> None:
        """Let go of the owner."""
        self._connecting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._connecting
        self._watch.end()

    def _tell(self, operation: int, now: int, hits: Sequence[Hit]) -> None:
        if self._circuit.left_alone:
            self._circuit.uncounted(now, ())
        else:
            self._ask(_Question(operation, now, hits, None))

    def _ask(self, question: _Question) -> None:
        turn = self._turn
        if turn is None or len(turn.questions) >= AT_ONCE:
            if turn is None:
                self._loop.call_soon(self._send)
            turn = self._turn = _Turn()
            self._unsent.append(turn)
        turn.questions.append(question)

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
                await asyncio.sleep(AGAIN)  # nobody has bound it yet
            finally:
                if transport is not None:
                    transport.close()

    def greeted(self, connection: _Connection) -> None:
        """An owner is there."""
        self._connection = connection
        self._circuit.answered()
        self._send()

    def answered(self, now: int, answers: Sequence[Sequence[Any]]) -> None:
        """An owner answered the first turn that was sent to it."""
        self._circuit.answered()
        self._watch.heard()
        figures = iter(answers)
        for question in self._sent.popleft().questions:
            if question.operation == owner_protocol.DECIDE:
                figure = next(figures)
                if question.waiting is not None and not question.waiting.done():
                    question.waiting.set_result(owner_protocol.decision(question.hits, now, figure))
        if not self._sent and not self._unsent:
            self._watch.end()

    def lost(self, connection: _Connection) -> None:
        """The owner, or the way to it, ended."""
        if self._connection is connection:
            self._connection = None
            self._unsent.extendleft(turn for turn in reversed(self._sent) if turn.questions)
            self._sent.clear()

    def _late(self) -> None:
        """The owner was silent for too long: nobody waits any more. Each question that it left open is a failure."""
        late, self._turn = [*self._sent, *self._unsent], None
        self._unsent.clear()
        for turn in late:
            questions, turn.questions = turn.questions, []
            for question in questions:
                self._circuit.failed(TimeoutError("no answer in time"))
                decision = self._circuit.uncounted(question.now, question.hits)
                if question.waiting is not None and not question.waiting.done():
                    question.waiting.set_result(decision)

    def _operate(self, operation: int, prefix: str) -> Iterator[Any]:
        """The values that answer an operator, the last of which is a number; on a connection of its own."""
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
        raise ConnectionError("the owner of the counters ended")


class _Connection(asyncio.Protocol):
    """To one owner, from its greeting on."""

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
        """Each turn is a frame."""
        frame = self._asking.frame
        self._transport.write(
            b"".join([frame((one.operation, one.hits) for one in turn.questions) for turn in turns])
        )
