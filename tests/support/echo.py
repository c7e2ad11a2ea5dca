"""Servers without HTTP: each answers what it is sent, after its name."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from typing import Any, Self


class EchoServer:
    """A TCP server on 127.0.0.1 that sends back ``NAME: BYTES``. Use as a context manager.

    A `greeting` is sent before the client has sent anything. With `tls` (certificate and key files) it ends TLS, and
    answers with the protocol that the client offered by ALPN, if it takes one of `alpn`.
    """

    def __init__(
        self, name: str, greeting: bytes = b"", tls: tuple[str, str] | None = None, alpn: tuple[str, ...] = ()
    ) -> None:
        prefix = f"{name}: ".encode()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                if greeting:
                    self.request.sendall(greeting)
                while data := self.request.recv(65536):
                    protocol = self.request.selected_alpn_protocol() if context is not None else None
                    self.request.sendall(prefix + (f"{protocol} ".encode() if protocol else b"") + data)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

            def get_request(self) -> tuple[Any, Any]:
                connection, peer = super().get_request()
                if context is not None:
                    connection = context.wrap_socket(
                        connection, server_side=True, do_handshake_on_connect=False
                    )
                return connection, peer

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing of clients that end a connection."""

        context = None
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            context.set_alpn_protocols(list(alpn))
        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class DatagramServer:
    """The same over UDP, as EchoServer."""

    def __init__(self, name: str) -> None:
        self._prefix = f"{name}: ".encode()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self.peers: list[tuple[str, int]] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                data, peer = self._socket.recvfrom(65536)
                self.peers.append(peer)
                self._socket.sendto(self._prefix + data, peer)
            except OSError:
                return
