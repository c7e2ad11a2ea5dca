"""Runs tests through a real Envoy, several at once."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from xds_server.gateway.model.gateway import Gateway
from xds_server.testing import http2
from xds_server.testing.comparison import Outcome, compare
from xds_server.testing.environment import RunningGateway, running
from xds_server.testing.messages import framed, without_web_trailers
from xds_server.testing.reader import Exchange, GatewayTest
from xds_server.testing.results import Failure, Result, Results, without_variables
from xds_server.testing.stubbed import HEADER, LOOPBACK
from xds_server.testing.stubs import Stubs, merged
from xds_server.testing.tokens import Signer, carried
from xds_server.translate import names

TIMEOUT = 30.0
"""Seconds in which the gateway must respond."""
_OURS = ("user-agent", "accept", "accept-encoding", "content-type")
"""Headers that the client would add."""
_HOSTS = 250


async def run(
    gateway: Gateway, source: Path, tests: Sequence[GatewayTest], *, envoy: Path, parallel: int
) -> Results:
    """Run the tests of the gateway of a folder, `parallel` at once. Raises EnvironmentFailed."""
    began, own = time.monotonic(), _values(gateway)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xds-test-")))
        stubs, signer = Stubs(folder, gateway.sections.upstreams), Signer()
        await stubs.start(stack, merged(test.answers for test in tests))
        served = await stack.enter_async_context(running(gateway, source, stubs, folder, envoy, signer.jwks))
        limit = asyncio.Semaphore(parallel)

        async def one(number: int) -> Result:
            async with limit:
                test = tests[number]
                variables = _longest_first({**dict(test.variables), **own})
                return await _Run(gateway, served, stubs, signer, number, test, variables).result()

        together = [number for number, test in enumerate(tests) if not test.moves_clock]
        done = dict(zip(together, await asyncio.gather(*map(one, together)), strict=True))
        for number in range(len(tests)):
            if number not in done:
                done[number] = await one(number)  # alone, because the others have the same clock
        return Results(
            tests=tuple(done[number] for number in range(len(tests))),
            seconds=time.monotonic() - began,
            warnings=tuple(without_variables(_longest_first(own), line) for line in served.warnings()),
        )


def _values(gateway: Gateway) -> dict[str, str]:
    """Return the texts of a gateway that have the value of an environment variable, and how they are written."""
    texts = {text: written for text, written in gateway.variables if text not in written}
    for source, content in gateway.contents.items():
        if source.env is not None:
            texts[content.decode("utf-8", "replace")] = f"${{{source.env}}}"
    return texts


def _longest_first(texts: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(texts.items(), key=lambda one: -len(one[0])))


class _Run:
    """One run of one test. Its requests come from an address of its own, so that limits by address are its own too."""

    def __init__(
        self,
        gateway: Gateway,
        served: RunningGateway,
        stubs: Stubs,
        signer: Signer,
        number: int,
        test: GatewayTest,
        variables: tuple[tuple[str, str], ...],
    ) -> None:
        self._gateway, self._served, self._stubs, self._signer = gateway, served, stubs, signer
        self._number, self._test = number, test
        self._variables = variables
        self._address = _address(number)
        self._sent = 0

    async def result(self) -> Result:
        """Send the requests one after another until one is not as expected."""
        began = time.monotonic()
        self._stubs.expect(str(self._number), self._test.answers)
        connector = aiohttp.TCPConnector(local_addr=(self._address, 0), force_close=True)
        async with aiohttp.ClientSession(
            connector=connector, skip_auto_headers=_OURS, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            failure = await self._failure(session)
        return Result(
            test=self._test, seconds=time.monotonic() - began, failure=failure, variables=self._variables
        )

    async def _failure(self, session: aiohttp.ClientSession) -> Failure | None:
        for exchange in self._test.exchanges:
            self._served.clock.move(exchange.step.after)
            for repetition in range(exchange.step.times):
                outcome = await self._outcome(session, exchange)
                differences = tuple(compare(exchange.step.expect, outcome, self._test.types))
                if differences:
                    return Failure(
                        exchange=exchange, repetition=repetition, outcome=outcome, differences=differences
                    )
        return None

    async def _outcome(self, session: aiohttp.ClientSession, exchange: Exchange) -> Outcome:
        self._sent += 1
        name = f"{self._number}-{self._sent}"
        try:
            return await self._send(session, exchange, name)
        except TimeoutError:
            error = f"no response within {TIMEOUT:.0f} s"
        except (aiohttp.ClientError, OSError) as found:
            error = f"no response: {found}"
        return Outcome(status=0, error=error, received=self._stubs.received(name))

    async def _send(self, session: aiohttp.ClientSession, exchange: Exchange, name: str) -> Outcome:
        sent, url, headers = exchange.step.request, exchange.url, exchange.step.request.all_headers
        if sent.token is not None:
            provider = self._gateway.sections.identity[sent.token.provider]
            token = self._signer.token(provider, sent.token.claims, int(time.time()))
            url, headers = carried(provider, token, url, headers)
        port = self._served.ports[exchange.explanation.listener]
        headers = {**headers, HEADER: name}
        if sent.http2 or sent.grpc is not None:
            outcome = await self._over_http2(exchange, url, headers, port)
        else:
            outcome = await _over_http1(session, exchange, url, headers, port)
        entry = await self._served.log.entry(name, self._address)
        await self._stubs.until_asked(name, exchange.step.expect.upstream)
        origin = names.route_origin(entry.get("route") or names.NOT_FOUND)
        return replace(
            outcome,
            route=origin[-1] if origin else None,
            details=entry.get("details") or "",
            received=self._stubs.received(name),
        )

    async def _over_http2(
        self, exchange: Exchange, url: str, headers: Mapping[str, str], port: int
    ) -> Outcome:
        sent, parts = exchange.step.request, urlsplit(url)
        pseudo = {
            ":method": sent.verb,
            ":scheme": parts.scheme,
            ":authority": parts.netloc,
            ":path": _target(url),
        }
        body = sent.content if sent.grpc is None else framed(exchange.messages)
        length = {"content-length": str(len(body))} if body and sent.grpc is None else {}
        request = http2.Message(
            headers=(*pseudo.items(), *headers.items(), *length.items()),
            body=body,
            streamed=sent.grpc is not None,
        )
        tls = _any_certificate(("h2",)) if parts.scheme == "https" else None
        async with asyncio.timeout(TIMEOUT):
            found = await http2.exchange(
                (LOOPBACK, port), self._address, request, tls, parts.hostname or LOOPBACK
            )
        body, trailers = found.body, found.trailers
        if sent.grpc is not None and sent.grpc.web:
            body, trailers = without_web_trailers(body)
        return Outcome(
            status=int(dict(found.headers).get(":status", "0")),
            headers=tuple(one for one in found.headers if not one[0].startswith(":")),
            body=body,
            trailers=tuple(trailers or ()),
            call=sent.grpc.method if sent.grpc is not None else None,
        )


async def _over_http1(
    session: aiohttp.ClientSession, exchange: Exchange, url: str, headers: Mapping[str, str], port: int
) -> Outcome:
    sent, parts = exchange.step.request, urlsplit(url)
    async with session.request(
        sent.method,
        URL(f"{parts.scheme}://{LOOPBACK}:{port}{_target(url)}", encoded=True),
        headers={**headers, "host": parts.netloc},
        data=sent.content or None,
        allow_redirects=False,
        ssl=_any_certificate() if parts.scheme == "https" else True,
        server_hostname=parts.hostname if parts.scheme == "https" else None,
        timeout=aiohttp.ClientTimeout(total=TIMEOUT),
    ) as response:
        return Outcome(
            status=response.status,
            headers=tuple((key.lower(), value) for key, value in response.headers.items()),
            body=await response.read(),
        )


def _target(url: str) -> str:
    """Return path and query of a URL."""
    return url.partition("://")[2].removeprefix(urlsplit(url).netloc) or "/"


def _address(number: int) -> str:
    """Return an address of loopback for a test; systems with only 127.0.0.1 use that for all."""
    address = (
        f"127.{1 + number // (_HOSTS * _HOSTS) % _HOSTS}.{number // _HOSTS % _HOSTS}.{1 + number % _HOSTS}"
    )
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return LOOPBACK
    return address


def _any_certificate(alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """Return a context that accepts the certificate of the gateway, whoever has signed it, and offers these protocols."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
