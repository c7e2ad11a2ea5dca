"""A Check as an ASGI application for pyvoy, in a separate interpreter that has only pyvoy and protobuf."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

KEYS = {f"key-{n:08d}-0123456789abcdef": f"c{n}" for n in range(10_000)}
HEADERS, TRAILERS = [(b"content-type", b"application/grpc")], [(b"grpc-status", b"0")]


POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(Path(os.environ["DESCRIPTORS"]).read_bytes()).file:
    POOL.Add(_file)


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"envoy.service.auth.v3.{name}"))


REQUEST, RESPONSE = _message("CheckRequest"), _message("CheckResponse")


async def app(
    _scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Respond to one call."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    consumer = KEYS.get(REQUEST.FromString(body[5:]).attributes.request.http.headers.get("x-api-key"))
    response = RESPONSE()
    if consumer is None:
        response.denied_response.status.code = 401
    else:
        header = response.ok_response.headers.add().header
        header.key, header.value = "x-consumer", consumer
    out = response.SerializeToString()
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS, "trailers": True})
    await send({"type": "http.response.body", "body": b"\0" + len(out).to_bytes(4, "big") + out})
    await send({"type": "http.response.trailers", "headers": TRAILERS})
