"""Small servers that speak what http.server does not: raw sockets, Unix sockets, gRPC health, TLS."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

Answer = Callable[[socket.socket], None]


class SocketServer:
    """Accepts connections and gives each to `answer` in a thread. `address` is ``127.0.0.1:port`` or ``unix:/path``."""

    def __init__(
        self,
        answer: Answer,
        *,
        path: Path | None = None,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._answer = answer
        self._tls = tls
        family = socket.AF_UNIX if path else socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.bind(str(path) if path else (host, 0))
        self._socket.listen(64)
        self.connections = 0
        self.port = 0 if path else int(self._socket.getsockname()[1])
        shown = f"[{host}]" if ":" in host else host
        self.address = f"unix:{path}" if path else f"{shown}:{self.port}"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._answer(connection)
        except OSError:
            return
        finally:
            connection.close()


def read_head(connection: socket.socket) -> bytes:
    """What comes until the end of the headers."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(4096)
        if not more:
            break
        received += more
    return received


def http(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    """An HTTP/1.1 response that ends its connection."""
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{headers}\r\n"
    return head.encode() + body


def answering(body: bytes) -> Answer:
    """Answer every request with `body`; what came before the request stands in the answer too."""

    def answer(connection: socket.socket) -> None:
        head = read_head(connection)
        if head:
            connection.sendall(http(body + b"|" + head))

    return answer


def server_context(
    certificate: bytes, key: bytes, folder: Path, *, ca: bytes | None = None
) -> ssl.SSLContext:
    """A TLS server's context; with `ca`, clients must show a certificate of it."""
    folder.mkdir(parents=True, exist_ok=True)
    chain, private = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(certificate)
    private.write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, private)
    if ca is not None:
        context.load_verify_locations(cadata=ca.decode())
        context.verify_mode = ssl.CERT_REQUIRED
    return context
