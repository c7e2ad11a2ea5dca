"""Several that accept from one socket: the one with the fewest connections takes the next."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from tests.support.wait import eventually
from xds_server.unary_server.accepting import PATIENCE, Accepting, Shared, counts


@pytest.fixture(params=[socket.AF_INET, socket.AF_UNIX])
def shared(request: pytest.FixtureRequest, tmp_path) -> Iterator[socket.socket]:
    with socket.socket(request.param) as one:
        one.bind(("127.0.0.1", 0) if request.param == socket.AF_INET else f"{tmp_path}/s")
        yield one


class Taker:
    """One of those that accept, with so many connections already."""

    def __init__(
        self,
        shared: socket.socket,
        counts: memoryview,
        number: int,
        before: int = 0,
        patience: float = PATIENCE,
    ) -> None:
        self.transports: list[asyncio.BaseTransport] = []
        mine = Shared(socket=shared.dup(), counts=counts, number=number)
        self.accepting = Accepting(mine, self._protocol, patience=patience)
        self.accepting.count(before)

    def _protocol(self) -> asyncio.Protocol:
        taken = self.transports

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                taken.append(transport)

        return Protocol()

    def close(self) -> None:
        self.accepting.close()
        for one in self.transports:
            one.close()


async def connect(shared: socket.socket) -> socket.socket:
    client = socket.socket(shared.family)
    client.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(client, shared.getsockname())
    except OSError:
        client.close()
        raise
    return client


async def test_connections_go_to_who_has_the_fewest(shared: socket.socket) -> None:
    counted = counts(4)  # one of which never accepts
    takers = [Taker(shared, counted, number, before, patience=60) for number, before in enumerate((3, 1, 0))]
    clients = [await connect(shared) for _ in range(8)]
    await eventually(lambda: sum(len(one.transports) for one in takers) == 8, "all connections")
    assert [len(one.transports) for one in takers] == [1, 3, 4]
    for one in (*clients, *takers):
        one.close()


async def test_who_has_more_takes_what_a_busy_one_leaves(shared: socket.socket) -> None:
    counted = counts(2)
    counted[1] = 0
    taker = Taker(shared, counted, 0, before=5)
    client = await connect(shared)
    await eventually(lambda: taker.transports, "the connection")
    client.close()
    taker.close()


async def test_who_closes_leaves_the_socket_to_the_others(shared: socket.socket) -> None:
    counted = counts(2)
    first, second = Taker(shared, counted, 0), Taker(shared, counted, 1, before=5, patience=60)
    first.close()
    client = await connect(shared)
    await eventually(lambda: second.transports, "the connection")
    assert not first.transports
    client.close()
    second.close()


async def test_a_socket_on_which_nobody_is_to_listen_any_more_is_left(shared: socket.socket) -> None:
    taker = Taker(shared, counts(1), 0)
    shared.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ConnectionRefusedError):
        await connect(shared)
    await asyncio.sleep(0)
    taker.close()
    assert not taker.transports
