"""The service: each of Envoy's messages is answered, by the version of a processor whose phases Envoy asks for."""

from __future__ import annotations

import asyncio
import inspect
import json
from typing import Any

import pytest
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from prometheus_client import CollectorRegistry

from filters.ext_proc import rule
from filters.ext_proc.names import PROCESSOR, ProcessorSource
from filters.processing.names import CHAIN
from filters.processing.service import Processing
from filters.unary import RpcError

HEAD = "from filters.ext_proc import Processor, change, respond\n"
HEADERS = "    async def request_headers(self, request):\n        return change({'x-version': 'VERSION'})\n"
BODY = "    async def request_body(self, request, body):\n        return b'VERSION'\n"


class Server:
    """A service whose clock stands still until it is told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.registry = CollectorRegistry()
        self.processing = Processing(self.registry, [(PROCESSOR, rule.load)], lambda: self.now)
        (self.table,) = self.processing.service().tables

    def load(self, source: str, name: str = "P") -> dict[str, str]:
        value = ProcessorSource("p.py", name, source.encode())
        return self.table.replace(
            {f"p.py:{name}": PROCESSOR.build(f"p.py:{name}", value).SerializeToString()}, ()
        )

    def open(self, *phases: str, timeout: float = 0.01, lenient: bool = False) -> Any:
        member = ["python_processor", "p.py:P", list(phases), timeout, 1000, lenient]
        text = json.dumps({"chain": [member], "path": "", "route": "users"})
        return self.processing.open({CHAIN.encode(): text.encode()})


def _source(version: str, *methods: str) -> str:
    return HEAD + "class P(Processor):\n" + "".join(methods).replace("VERSION", version)


def _headers(path: str = "/", *, end: bool = True, **more: str) -> bytes:
    message = pb.ProcessingRequest()
    message.request_headers.end_of_stream = end
    for name, value in {
        ":method": "GET",
        ":path": path,
        ":scheme": "http",
        ":authority": "x",
        **more,
    }.items():
        message.request_headers.headers.headers.add(key=name, raw_value=value.encode())
    return message.SerializeToString()


async def _asked(session: Any, message: bytes) -> pb.ProcessingResponse:
    result = session.receive(message)
    return pb.ProcessingResponse.FromString(await result if inspect.isawaitable(result) else result)


def _version(response: pb.ProcessingResponse) -> str:
    (option,) = response.request_headers.response.header_mutation.set_headers
    return option.header.raw_value.decode()


async def test_a_coroutine_that_never_waits_is_answered_without_a_task() -> None:
    server = Server()
    server.load(_source("one", HEADERS))
    assert isinstance(server.open("request_headers").receive(_headers()), bytes)


async def test_the_body_is_asked_for_when_it_is_wanted() -> None:
    server = Server()
    server.load(_source("one", BODY))
    with_length = await _asked(server.open("request_body"), _headers(end=False, **{"content-length": "3"}))
    assert with_length.mode_override.request_body_mode == ProcessingMode.BUFFERED
    without = await _asked(server.open("request_body"), _headers(end=False))
    assert without.mode_override.request_body_mode == ProcessingMode.BUFFERED_PARTIAL
    assert not (await _asked(server.open("request_body"), _headers())).HasField("mode_override")


async def test_a_changed_body_keeps_the_version_and_the_new_one_is_for_the_next_exchange() -> None:
    server = Server()
    server.load(_source("one", HEADERS, BODY))
    session = server.open("request_headers", "request_body")
    assert _version(await _asked(session, _headers(end=False))) == "one"
    server.load(_source("two", HEADERS, BODY))
    body = pb.ProcessingRequest()
    body.request_body.body = b"x"
    answer = await _asked(session, body.SerializeToString())
    assert answer.request_body.response.body_mutation.body == b"one"
    assert (
        _version(await _asked(server.open("request_headers", "request_body"), _headers(end=False))) == "two"
    )


async def test_a_former_version_serves_envoys_that_ask_for_its_phases() -> None:
    server = Server()
    server.load(_source("one", HEADERS))
    server.load(_source("two", HEADERS, BODY))
    assert _version(await _asked(server.open("request_headers"), _headers())) == "one"
    assert _version(await _asked(server.open("request_headers", "request_body"), _headers())) == "two"
    server.now += 60
    server.load("", "Other")  # any change of rules
    answer = await _asked(server.open("request_headers"), _headers(end=False))
    assert _version(answer) == "two"
    assert answer.mode_override.request_body_mode == ProcessingMode.BUFFERED_PARTIAL


async def test_a_new_version_is_waited_for() -> None:
    server = Server()
    server.load(_source("one", HEADERS))
    asking = asyncio.ensure_future(
        _asked(server.open("request_headers", "request_body", timeout=30), _headers())
    )
    await asyncio.sleep(0)
    server.load(_source("two", HEADERS, BODY))
    assert _version(await asking) == "two"


async def test_the_last_good_version_goes_on_if_the_new_one_cannot_be_loaded() -> None:
    server = Server()
    server.load(_source("one", HEADERS))
    assert server.load(_source("two", HEADERS, BODY) + "raise RuntimeError('no luck')\n")
    phases = ("request_headers", "request_body")
    assert _version(await _asked(server.open(*phases), _headers())) == "one"
    assert isinstance(server.open(*phases).receive(_headers()), bytes), "it is not waited for again"


async def test_pieces_are_no_matter_of_an_override() -> None:
    server = Server()
    server.load(_source("one", HEADERS))
    answer = await _asked(server.open("request_headers", "request_chunk"), _headers())
    assert answer.immediate_response.details == "processor_missing"


async def test_a_processor_that_never_arrives_is_an_error() -> None:
    answer = await _asked(Server().open("request_headers"), _headers(**{"x-request-id": "7"}))
    assert answer.immediate_response.status.code == 500
    problem = json.loads(answer.immediate_response.body)
    assert (problem["reason"], problem["request_id"]) == ("processor_missing", "7")


async def test_a_response_without_its_request_is_left_alone() -> None:
    server = Server()
    server.load(_source("one", HEADERS))
    message = pb.ProcessingRequest()
    message.response_headers.headers.headers.add(key=":status", raw_value=b"401")
    answer = await _asked(server.open("request_headers"), message.SerializeToString())
    assert answer == pb.ProcessingResponse(response_headers=pb.HeadersResponse())


@pytest.mark.parametrize("message", [b"\xff\xff", b""])
async def test_a_message_that_is_none_ends_the_stream(message: bytes) -> None:
    server = Server()
    server.load(_source("one", HEADERS))
    with pytest.raises(RpcError):
        server.open("request_headers").receive(message)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b'{"chain": [1], "path": "", "route": ""}',
        b'{"chain": [["a", "b", ["x"], 1, 1, true]], "path": "", "route": ""}',
    ],
)
def test_a_chain_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(RpcError, match="x-xds-chain is malformed"):
        Server().processing.open({CHAIN.encode(): text})


async def test_calls_are_counted() -> None:
    server = Server()
    server.load(_source("one", HEADERS))
    await _asked(server.open("request_headers"), _headers())
    labels = {"processor": "p.py:P", "method": "request_headers", "outcome": "changed"}
    assert server.registry.get_sample_value("xds_processor_calls_total", labels) == 1
    assert (
        server.registry.get_sample_value("xds_processing_seconds_count", {"message": "request_headers"}) == 1
    )
