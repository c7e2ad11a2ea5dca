"""A network namespace for a test: an own loopback, where addresses of pods and load balancers are local addresses.

Nothing of the host is changed, and nothing remains: the namespace has no name, and it ends with the last process that
has it open. Needs root.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

T = TypeVar("T")

PODS, LOAD_BALANCERS, PODS_IPV6 = "10.244.0.0/16", "10.245.0.0/16", "fd00:10:244::/64"
"""Every address of these networks is a local one in the namespace, so that anything can listen on it."""
NODE = "10.244.0.1/16"
"""The address of the bridge in a namespace with pods."""
_ANY_IPV6 = Path("/proc/sys/net/ipv6/ip_nonlocal_bind")
"""Lets a socket bind to an IPv6 address that has a local route only."""
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_CHUNK = 2**16


class Namespace:
    """An open network namespace. Use as a context manager."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._forwarders: list[_Forwarder] = []

    @classmethod
    def new(cls) -> Self:
        """Return a namespace in which loopback is up."""
        made = cls(_in_thread(_new_namespace))
        made.call("ip", "link", "set", "lo", "up")
        made.run(lambda: _ANY_IPV6.write_text("1"))
        for version, network in (("-4", PODS), ("-4", LOAD_BALANCERS), ("-6", PODS_IPV6)):
            made.call("ip", version, "route", "add", "local", network, "dev", "lo")
        return made

    @classmethod
    def node(cls) -> Self:
        """Return a namespace for pods with namespaces of their own, behind a bridge with the address of the node."""
        made = cls(_in_thread(_new_namespace))
        made.call("ip", "link", "set", "lo", "up")
        made.call("ip", "link", "add", "br0", "type", "bridge")
        made.call("ip", "addr", "add", NODE, "dev", "br0")
        made.call("ip", "link", "set", "br0", "up")
        made.call("ip", "route", "add", "local", LOAD_BALANCERS, "dev", "lo")
        for setting in ("ip_forward", "conf/all/route_localnet"):
            made.run(lambda setting=setting: Path("/proc/sys/net/ipv4", setting).write_text("1"))
        return made

    @classmethod
    def at(cls, path: Path) -> Self:
        """Return a namespace that another process has open; `path` is what it calls `path`."""
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    @property
    def path(self) -> Path:
        """A file by which other processes enter the namespace while this process lives."""
        return Path(f"/proc/{os.getpid()}/fd/{self._descriptor}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._forwarders:
            one.stop()
        os.close(self._descriptor)

    def command(self, *arguments: str | Path) -> list[str]:
        """Return a command that runs another one in the namespace. It is killed when the thread that started it ends."""
        return ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net={self.path}", *map(str, arguments)]

    def call(self, *arguments: str | Path) -> str:
        """Run a command in the namespace, and return its output. Raises AssertionError if it fails."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def run(self, function: Callable[[], T]) -> T:
        """Call a function in a thread inside of the namespace: the sockets that it makes stay in the namespace."""

        def enter() -> T:
            self._enter()
            return function()

        return _in_thread(enter)

    def listen(self, address: str, port: int = 0) -> socket.socket:
        """Return a socket that listens in the namespace, for example on the address of a pod."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return self.run(lambda: socket.create_server((address, port), family=family))

    def connect(self, address: str, port: int) -> socket.socket:
        """Return a connection to an address in the namespace. Raises OSError."""
        return self.run(lambda: socket.create_connection((address, port), 10))

    def forward(self, address: str, port: int) -> int:
        """Return a port of the host's 127.0.0.1 whose connections go to an address in the namespace."""
        self._forwarders.append(_Forwarder(self._enter, address, port))
        return self._forwarders[-1].port

    def _enter(self) -> None:
        _check(_LIBC.setns(self._descriptor, _CLONE_NEWNET))


class _Forwarder:
    """Forwards connections in a thread: it accepts them on the host, and makes the other half in the namespace."""

    def __init__(self, enter: Callable[[], None], address: str, port: int) -> None:
        self._enter, self._target = enter, (address, port)
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"forward to {address}:{port}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def _run(self) -> None:
        self._enter()
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        accepting = asyncio.create_task(self._accept())
        await self._stopped.wait()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for one in others:
                one.cancel()
            await asyncio.wait(others)
        self._socket.close()
        assert accepting.cancelled()
        await asyncio.sleep(0)  # the transports that were aborted close their sockets

    async def _accept(self) -> None:
        """Accept connections. They have no server of asyncio, which would start tasks after it was closed."""
        self._socket.setblocking(False)
        running: set[asyncio.Task[None]] = set()
        while True:
            accepted, _ = await self._loop.sock_accept(self._socket)
            task = asyncio.create_task(self._connected(accepted))
            running.add(task)
            task.add_done_callback(running.discard)

    async def _connected(self, accepted: socket.socket) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=accepted)
        except BaseException:
            accepted.close()
            raise
        there_writer: asyncio.StreamWriter | None = None
        try:
            there_reader, there_writer = await asyncio.open_connection(*self._target)
            await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
        except OSError:  # there is no target, or one half broke: both end
            pass
        finally:
            writer.transport.abort()
            if there_writer is not None:
                there_writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while content := await reader.read(_CHUNK):
        writer.write(content)
        await writer.drain()
    writer.write_eof()


def _new_namespace() -> int:
    _check(_LIBC.unshare(_CLONE_NEWNET))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _in_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread of its own, because a thread that has changed its namespace is of no other use."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function).result()


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
