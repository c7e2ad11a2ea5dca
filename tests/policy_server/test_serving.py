"""A policy server and the real xDS server, over gRPC."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from envoy.config.core.v3 import base_pb2
from google.protobuf import wrappers_pb2
from grpc_health.v1 import health_pb2

from filters.rules import Service, Table
from filters.unary import RpcError, UnaryMethod
from tests.support.certificates import Authority, authority
from tests.support.ports import free_port
from tests.support.rules import snapshot, table
from tests.support.wait import eventually
from tests.support.xds import XdsThread
from xds_server.policy_server.delta_client import DeltaClient, Tls
from xds_server.policy_server.grpc_servers import Kind
from xds_server.policy_server.rules_stream import HeldRules
from xds_server.policy_server.server import PolicyServer
from xds_server.serving import tls
from xds_server.serving.events import Connected, Nacked

NODE = base_pb2.Node(id="policy-server-1", cluster="policy-servers")
LOOKUP, WAIT = "/test.Words/Lookup", "/test.Words/Wait"


def words(held: Table[str], release: asyncio.Event) -> Service:
    """A service that looks a word up, fails on request, and waits."""

    def lookup(name: wrappers_pb2.StringValue) -> wrappers_pb2.StringValue | bytes:
        if name.value == "crash":
            raise ValueError
        if name.value not in held.current:
            raise RpcError(5, f"no word {name.value}")
        return wrappers_pb2.StringValue(value=held.current[name.value])

    async def wait(name: wrappers_pb2.StringValue) -> bytes:
        await release.wait()
        return name.SerializeToString()

    parse, serialize = wrappers_pb2.StringValue.FromString, wrappers_pb2.StringValue.SerializeToString
    methods = (
        UnaryMethod(path=LOOKUP, parse=parse, call=lookup, serialize=serialize),
        UnaryMethod(path=WAIT, parse=parse, call=wait, serialize=serialize),
    )
    return Service(name="test.Words", methods=methods, tables=(held,))


KIND: list[Kind] = ["native"]


@pytest.fixture(params=["native", "grpcio"], autouse=True)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Every test here is run on each carrier."""
    KIND[0] = request.param
    return KIND[0]


class Running:
    """A policy server in this loop, following the control plane on `port`."""

    def __init__(self, port: int, tls: Tls | None = None) -> None:
        self.words = table()
        self.release = asyncio.Event()
        self.server = PolicyServer([words(self.words, self.release)], KIND[0])
        self.client = DeltaClient(HeldRules([self.words]), f"127.0.0.1:{port}", NODE, self._complete, tls)
        self.address = ""

    def _complete(self) -> None:
        self.server.healthy = True

    async def call(self, method: str, text: str) -> str:
        async with grpc.aio.insecure_channel(self.address) as channel:
            request = wrappers_pb2.StringValue(value=text).SerializeToString()
            return str(wrappers_pb2.StringValue.FromString(await channel.unary_unary(method)(request)).value)

    async def health(self, service: str = "") -> int:
        async with grpc.aio.insecure_channel(self.address) as channel:
            request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
            answer = await channel.unary_unary("/grpc.health.v1.Health/Check")(request)
            return int(health_pb2.HealthCheckResponse.FromString(answer).status)


@asynccontextmanager
async def running(port: int, address: str = "127.0.0.1:0") -> AsyncIterator[Running]:
    one = Running(port)
    one.address = await one.server.start(address)
    following = asyncio.create_task(one.client.run())
    try:
        yield one
    finally:
        one.release.set()
        following.cancel()
        await asyncio.wait({following})
        await one.server.stop(0)


async def test_it_is_healthy_once_it_has_its_rules_and_answers_by_them() -> None:
    with XdsThread() as control:
        async with running(control.port) as one:
            assert await one.health() == health_pb2.HealthCheckResponse.NOT_SERVING
            control.publish(snapshot({"a": "one"}))
            await eventually(lambda: one.server.healthy, "the server to be healthy")
            assert await one.health("test.Words") == health_pb2.HealthCheckResponse.SERVING
            assert await one.call(LOOKUP, "a") == "one"
        (connected,) = control.seen(Connected)
        assert (connected.node.id, connected.node.cluster) == ("policy-server-1", "policy-servers")


async def test_a_new_rule_is_in_force_without_a_new_stream() -> None:
    with XdsThread() as control:
        control.publish(snapshot({"a": "one"}))
        async with running(control.port) as one:
            await eventually(lambda: one.server.healthy, "the server to be healthy")
            control.publish(snapshot({"a": "one", "b": "two"}))
            await eventually(lambda: "b" in one.words.current, "the new word")
            assert await one.call(LOOKUP, "b") == "two"
        assert len(control.seen(Connected)) == 1


async def test_a_refused_rule_is_told_to_the_control_plane_by_name() -> None:
    with XdsThread() as control:
        control.publish(snapshot({"a": "one"}))
        async with running(control.port) as one:
            await eventually(lambda: one.server.healthy, "the server to be healthy")
            control.publish(snapshot({"a": "bad"}))
            await eventually(lambda: control.seen(Nacked), "the rejection")
            assert await one.call(LOOKUP, "a") == "one"
        assert control.seen(Nacked)[0].message == "a: bad word"


async def test_the_last_rules_stay_without_the_control_plane() -> None:
    """When the control plane is back, the policy server follows it again."""
    port = free_port()
    control = XdsThread(f"127.0.0.1:{port}")
    async with running(port) as one:
        with control:
            control.publish(snapshot({"a": "one"}))
            await eventually(lambda: one.server.healthy, "the server to be healthy")
        await eventually(lambda: not one.client.connected, "the client to notice")
        assert await one.call(LOOKUP, "a") == "one"
        assert await one.health() == health_pb2.HealthCheckResponse.SERVING
        with XdsThread(f"127.0.0.1:{port}") as back:
            back.publish(snapshot({"a": "two"}))
            await eventually(lambda: one.words.current == {"a": "two"}, "the changed word")


async def test_a_status_of_the_service_and_a_failure_of_it_reach_the_caller() -> None:
    with XdsThread() as control:
        control.publish(snapshot({}))
        async with running(control.port) as one:
            for text, code in (("x", grpc.StatusCode.NOT_FOUND), ("crash", grpc.StatusCode.UNKNOWN)):
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await one.call(LOOKUP, text)
                assert error.value.code() is code
            with pytest.raises(grpc.aio.AioRpcError) as unknown:
                await one.health("other")
            assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_two_servers_share_a_port() -> None:
    port = free_port()
    with XdsThread() as control:
        control.publish(snapshot({"a": "one"}))
        async with (
            running(control.port, f"127.0.0.1:{port}") as one,
            running(control.port, f"127.0.0.1:{port}") as other,
        ):
            await eventually(
                lambda: one.server.healthy and other.server.healthy, "both servers to be healthy"
            )
            assert one.address == other.address
            assert await one.call(LOOKUP, "a") == "one"


async def test_it_listens_on_a_unix_socket(tmp_path: Path) -> None:
    with XdsThread() as control:
        control.publish(snapshot({"a": "one"}))
        async with running(control.port, f"unix:{tmp_path}/policy.sock") as one:
            await eventually(lambda: one.server.healthy, "the server to be healthy")
            assert await one.call(LOOKUP, "a") == "one"


async def test_an_address_that_cannot_be_had_is_an_error_of_the_environment() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="cannot listen"):
            await PolicyServer([], KIND[0]).start(f"127.0.0.1:{taken.getsockname()[1]}")


async def test_draining_finishes_what_is_under_way() -> None:
    with XdsThread() as control:
        control.publish(snapshot({}))
        async with running(control.port) as one:
            under_way = asyncio.create_task(one.call(WAIT, "late"))
            await eventually(lambda: one.server.busy == 1, "the call to be under way")
            stopping = asyncio.create_task(one.server.stop(30))
            await eventually(lambda: not one.server.healthy, "the server to be leaving")
            one.release.set()
            assert await under_way == "late"
            await stopping


async def test_it_speaks_tls_and_takes_renewed_files_at_its_next_attempt(tmp_path: Path) -> None:
    for name, (certificate, key) in {
        "server": authority().issue("127.0.0.1"),
        "client": authority().issue("spiffe://test/policy-server"),
    }.items():
        (tmp_path / f"{name}.crt").write_bytes(certificate)
        (tmp_path / f"{name}.key").write_bytes(key)
    ca = tmp_path / "ca.crt"
    ca.write_bytes(Authority("Another CA").pem)
    trusted = tmp_path / "trusted.crt"
    trusted.write_bytes(authority().pem)
    files = tls.Files(
        certificate=tmp_path / "server.crt", private_key=tmp_path / "server.key", client_ca=trusted
    )
    with XdsThread(credentials=tls.credentials(files)) as control:
        control.publish(snapshot({"a": "one"}))
        own = Tls(ca=ca, certificate=tmp_path / "client.crt", private_key=tmp_path / "client.key")
        one = Running(control.port, own)
        following = asyncio.create_task(one.client.run())
        await eventually(
            lambda: "CERTIFICATE_VERIFY_FAILED" in one.client.reason, "the certificate to be rejected"
        )
        ca.write_bytes(authority().pem)
        await eventually(lambda: one.words.current == {"a": "one"}, "the word")
        following.cancel()
        await asyncio.wait({following})
