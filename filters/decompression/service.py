"""gateway.bodies.v1.Bodies: decodes the content codings of bodies for scripts in Envoy, which cannot."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, Counter

from filters.content_coding import CodingError, decode
from filters.decompression.names import BODIES, DECODE
from filters.rules import Service
from filters.unary import UnaryMethod
from protos import bodies_pb2 as pb

SMALL = 16 << 10
"""Bytes. A larger body is decoded in a thread, so that other calls do not wait for it."""


def service(registry: CollectorRegistry) -> Service:
    """The gRPC service that a policy server mounts. Its metrics are in the registry."""
    decoded = Counter(
        "xds_decoded_bodies",
        "Bodies that the policy server decoded for Envoy. outcome: decoded or rejected.",
        ["outcome"],
        registry=registry,
    )

    def answer(request: pb.DecodeRequest) -> pb.DecodeResponse:
        try:
            response = pb.DecodeResponse(body=decode(request.body, request.codings, request.limit))
            decoded.labels("decoded").inc()
        except CodingError as error:
            response = pb.DecodeResponse(status=error.status, message=str(error))
            decoded.labels("rejected").inc()
        return response

    async def call(request: pb.DecodeRequest) -> pb.DecodeResponse:
        if request.limit <= SMALL:
            return answer(request)
        return await asyncio.to_thread(answer, request)

    method = UnaryMethod(
        path=DECODE,
        parse=pb.DecodeRequest.FromString,
        call=call,
        serialize=pb.DecodeResponse.SerializeToString,
    )
    return Service(name=BODIES, methods=(method,))
