"""Repositories of git: made with the program git, and served over smart HTTP by its own server."""

from __future__ import annotations

import base64
import contextlib
import gc
import os
import socket
import subprocess
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

_AUTHOR = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}


@contextmanager
def collected() -> Iterator[None]:
    """Collect connections at the end that dulwich leaves open after an error of HTTP, so that no later test is blamed."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class WorkingTree:
    """A working tree with the branch `main`. `push` brings it to a bare repository, if there is one."""

    def __init__(self, path: Path, remote: Path | None = None) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        if remote is not None:
            self.git("init", "--quiet", "--bare", "--initial-branch=main", str(remote))
            self.git("remote", "add", "origin", str(remote))

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", *words],
            cwd=self.path,
            env={**os.environ, **_AUTHOR},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def write(self, name: str, text: str) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def commit(self, subject: str, **files: str) -> str:
        """Write files by their names without .yaml, commit everything, and return the id of the commit."""
        for name, text in files.items():
            self.write(f"{name}.yaml", text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", subject)
        return self.git("rev-parse", "HEAD")

    def push(self, *words: str) -> None:
        self.git("push", "--quiet", *(words or ("origin", "HEAD:main")))


class DrippingServer:
    """Answers every request with a response that never ends, a byte at a time. Use as a context manager."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.connected = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._drip, args=self._socket.accept()[:1], daemon=True).start()

    def _drip(self, connection: socket.socket) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n"
        with connection, contextlib.suppress(OSError):
            connection.recv(65_536)
            connection.sendall(head + b"Content-Length: 1000000\r\n\r\nFFF0")
            self.connected.set()
            while not self._ended.wait(0.2):
                connection.sendall(b"a")


class GitServer:
    """Serves the bare repositories below a folder over smart HTTP. Use as a context manager.

    It wants `token` as a password if there is one, and answers 503 while `down` is set.
    """

    def __init__(self, root: Path, token: str = "") -> None:
        server = self
        self.down = False
        self.requests = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.requests += 1
                wanted = base64.b64encode(f"x-access-token:{token}".encode()).decode()
                if server.down:
                    self._respond(503, {}, b"down")
                elif token and self.headers.get("authorization") != f"Basic {wanted}":
                    self._respond(401, {"WWW-Authenticate": "Basic realm=git"}, b"who are you?")
                else:
                    self._run()

            def do_POST(self) -> None:
                self.do_GET()

            def _run(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                environment = {
                    "GIT_PROJECT_ROOT": str(root),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "PATH_INFO": parts.path,
                    "QUERY_STRING": parts.query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("content-type", ""),
                    "CONTENT_LENGTH": str(len(body)),
                    "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
                }
                done = subprocess.run(
                    [
                        "git",
                        "-c",
                        "safe.directory=*",
                        "-c",
                        "uploadpack.allowReachableSHA1InWant=true",
                        "http-backend",
                    ],
                    input=body,
                    env={**os.environ, **environment},
                    capture_output=True,
                    timeout=60,
                )
                head, _, content = done.stdout.partition(b"\r\n\r\n")
                fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
                self._respond(int(fields.pop("Status", "200").split()[0]), fields, content)

            def _respond(self, status: int, fields: dict[str, str], content: bytes) -> None:
                self.send_response(status)
                for name, value in {**fields, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
