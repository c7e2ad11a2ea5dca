"""Stands in for the image echo-advanced of the conformance suite: a server that describes requests, and a client.

As a server, it listens by the flags of the image. `GET /forward?url=…&header=NAME:VALUE` sends a request from the pod
and returns what the client prints, so that a test needs no shell in the pod. `client URL` is the client of the image.
It needs nothing of this repository, because it runs as the container of a pod.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import ssl
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import grpc
import yarl
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_METHOD = "/proto.EchoTestService/Echo"
_TIMEOUT = aiohttp.ClientTimeout(total=10)


def _hostname() -> str:
    return os.environ.get("HOSTNAME", "")


def _described(**fields: str) -> list[str]:
    return [f"{name}={value}" for name, value in fields.items()]


async def _answer(request: web.Request) -> web.Response:
    if request.path == "/forward":
        headers = [tuple(one.split(":", 1)) for one in request.query.getall("header", [])]
        count = int(request.query.get("count", "1"))
        return web.Response(
            text=await _client(request.query["url"], request.query.get("method", "GET"), headers, count)
        )
    port = request.transport.get_extra_info("sockname")[1] if request.transport is not None else 0
    lines = _described(
        ServiceVersion=os.environ.get("VERSION", ""),
        ServicePort=str(port),
        Host=request.host,
        URL=request.path_qs,
        Method=request.method,
        Proto="HTTP/1.1",
        IP=request.remote or "",
    )
    lines += [f"RequestHeader={name}:{value}" for name, value in request.headers.items()]
    return web.Response(text="\n".join([*lines, f"Hostname={_hostname()}", ""]))


async def _client(url: str, method: str, headers: list[tuple[str, str]], count: int) -> str:
    """Send requests, and return their responses as text with a blank line between two."""
    parts = urlsplit(url)
    if parts.scheme in ("grpc", "xds"):
        target = parts.netloc if parts.scheme == "grpc" else f"xds:///{parts.netloc}"
        return "\n\n".join([await _call(target, headers, number) for number in range(count)]) + "\n"
    found: list[str] = []
    connector = aiohttp.TCPConnector(ssl=False, limit=20)
    async with aiohttp.ClientSession(timeout=_TIMEOUT, connector=connector) as session:
        for number in range(count):
            try:
                found.append(await _request(session, url, method, headers, number))
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                found.append(f"[{number}] Error={type(error).__name__} {error}")
    return "\n\n".join(found) + "\n"


async def _request(
    session: aiohttp.ClientSession, url: str, method: str, headers: list[tuple[str, str]], number: int
) -> str:
    as_it_is = yarl.URL(url, encoded=True)
    async with session.request(method, as_it_is, headers=headers, allow_redirects=False) as response:
        lines = [f"Url={url}", f"Method={method}", f"StatusCode={response.status}"]
        lines += [f"ResponseHeader={name.title()}:{value}" for name, value in response.headers.items()]
        body = (await response.text()).splitlines()
        return "\n".join(
            [*(f"[{number}] {line}" for line in lines), *(f"[{number} body] {line}" for line in body)]
        )


async def _call(target: str, headers: list[tuple[str, str]], number: int) -> str:
    async with grpc.aio.insecure_channel(target) as channel:
        metadata = [(name.lower(), value) for name, value in headers]
        try:
            body = await channel.unary_unary(_METHOD)(b"", metadata=metadata, timeout=10)
        except grpc.aio.AioRpcError as error:
            return f"[{number}] Error={error.code().name} {error.details()}"
        return "\n".join(f"[{number} body] {line}" for line in body.decode().splitlines())


class _Grpc(grpc.GenericRpcHandler):
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != _METHOD:
            return None

        async def echo(_request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            lines = _described(StatusCode="200", Proto="GRPC", Hostname=_hostname())
            lines += [f"RequestHeader={key}:{value}" for key, value in context.invocation_metadata() or ()]
            return "\n".join(lines).encode()

        return grpc.unary_unary_rpc_method_handler(echo)


async def _tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(f"Hostname={_hostname()}\nStatusCode=200\n".encode())
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    writer.close()


def _certificate() -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "echo")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        Path(file.name).write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
        context.load_cert_chain(file.name)
    return context


async def _serve(arguments: list[str]) -> None:
    flags: dict[str, list[str]] = {}
    for one in arguments:
        name, _, value = one.removeprefix("--").partition("=")
        flags.setdefault(name, []).append(value)
    secure = set(flags.get("tls", []))
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", _answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    for port in flags.get("port", ["8080"]):
        context = _certificate() if port in secure else None
        await web.TCPSite(runner, "0.0.0.0", int(port), ssl_context=context).start()
    for port in flags.get("tcp", []):
        await asyncio.start_server(_tcp, "0.0.0.0", int(port))
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([_Grpc()])
    for port in flags.get("grpc", []):
        server.add_insecure_port(f"0.0.0.0:{port}")
    await server.start()
    await asyncio.Event().wait()


def _main(arguments: list[str]) -> None:
    if arguments[:1] != ["client"]:
        asyncio.run(_serve(arguments))
        return
    url, method, count = arguments[1], "GET", 1
    headers: list[tuple[str, str]] = []
    words = iter(arguments[2:])
    for word in words:
        if word == "-H":
            name, _, value = next(words).partition(":")
            headers.append((name, value))
        elif word.startswith("--method="):
            method = word.partition("=")[2]
        elif word.startswith("--count="):
            count = int(word.partition("=")[2])
    print(asyncio.run(_client(url, method, headers, count)), end="")


if __name__ == "__main__":
    _main(sys.argv[1:])
