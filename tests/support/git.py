"""Repositories of git: made with the program git, and served by its own server over smart HTTP and ssh."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import os
import shlex
import socket
import subprocess
import threading
import warnings
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import asyncssh

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


class GitSshServer:
    """Serves the bare repositories below a folder over ssh, to whoever has the key in `key`. Use as a context manager.

    `known_hosts` is a file with the key of this host. `renew()` gives the host another key, as if another machine
    had its address.
    """

    def __init__(self, root: Path, keys: Path) -> None:
        keys.mkdir(parents=True, exist_ok=True)
        self._root, self._keys = root, keys
        self._loop = asyncio.new_event_loop()
        self.key, self.known_hosts = keys / "client", keys / "known_hosts"
        self.commands: list[str] = []
        self.write_key(self.key)

    def write_key(self, file: Path) -> None:
        """Write a new private key of a client."""
        key = asyncssh.generate_private_key("ssh-ed25519")
        file.write_bytes(key.export_private_key())
        file.chmod(0o600)
        file.with_suffix(".pub").write_bytes(key.export_public_key())

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._listen(0))
        self.url = f"ssh://git@127.0.0.1:{self.port}"
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {self._public}\n")
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def renew(self) -> None:
        """Listen at the same port with another key."""
        self._run(self._close())
        self._run(self._listen(self.port))

    def _run(self, coroutine: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _listen(self, port: int) -> None:
        host = asyncssh.generate_private_key("ssh-ed25519")
        self._public = host.export_public_key().decode().strip()
        self._server = await asyncssh.listen(
            "127.0.0.1",
            port,
            server_host_keys=[host],
            authorized_client_keys=str(self.key.with_suffix(".pub")),
            process_factory=self._serve,
            encoding=None,
        )
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        command = process.command or ""
        self.commands.append(command)
        program, path = shlex.split(command)
        assert program in ("git-upload-pack", "git upload-pack")
        git = await asyncio.create_subprocess_exec(
            *("git", "-c", "safe.directory=*", "upload-pack", str(self._root / path.lstrip("/"))),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert git.stdin is not None
        assert git.stdout is not None
        assert git.stderr is not None
        upwards = asyncio.create_task(_copied(process.stdin, git.stdin))
        while content := await git.stdout.read(1 << 16):
            process.stdout.write(content)
        process.stderr.write(await git.stderr.read())
        upwards.cancel()
        process.exit(await git.wait())


async def _copied(source: asyncssh.SSHReader[bytes], to: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while content := await source.read(1 << 16):
            to.write(content)
        to.close()
