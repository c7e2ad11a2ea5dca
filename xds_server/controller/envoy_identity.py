"""Which Gateway an Envoy serves: the one whose pods have the service account of its token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc

from filters.policy_server import NODE_CLUSTER
from xds_server.controller import policy_servers
from xds_server.discovery.node import Node
from xds_server.errors import XdsError
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.token_review import ServiceAccount, review
from xds_server.serving.session import Context, NodeRejected

AUDIENCE = "xds-gateway.dev"
"""The audience of the tokens, so that no other service can use them here, and this one cannot use them elsewhere."""
_PATIENCE = 20.0
"""Seconds that an Envoy waits for the objects of the cluster to be known."""


class EnvoyIdentity:
    """The `group_of` of the xDS server of the controller.

    An Envoy proves who it is by the projected token of its pod, which the API server verifies at the start of each
    stream. What an Envoy says of itself decides nothing but whether it is an Envoy, the policy server of the same pod, or a client of gRPC. `group_of` returns the
    group that a service account gets for the name of a program, and `known` is set when the objects of the cluster are known.
    """

    def __init__(
        self, client: ApiClient, group_of: Callable[[ServiceAccount, str], str | None], known: asyncio.Event
    ) -> None:
        self._client, self._group_of, self._known = client, group_of, known

    async def __call__(self, node: Node, context: Context) -> str:
        """Return the group of an Envoy. Raises NodeRejected."""
        token = _token(context)
        if not token:
            raise NodeRejected(
                grpc.StatusCode.UNAUTHENTICATED,
                "it sent no token of a service account (authorization: Bearer)",
            )
        try:
            account = await review(self._client, token, AUDIENCE)
            async with asyncio.timeout(_PATIENCE):
                await self._known.wait()
        except XdsError as error:
            raise NodeRejected(
                grpc.StatusCode.UNAVAILABLE, f"its token cannot be verified: {error}"
            ) from None
        except TimeoutError:
            message = "the objects of the cluster are not known yet"
            raise NodeRejected(grpc.StatusCode.UNAVAILABLE, message) from None
        if account is None:
            message = f"the API server does not accept its token for the audience {AUDIENCE}"
            raise NodeRejected(grpc.StatusCode.UNAUTHENTICATED, message)
        group = self._group_of(account, node.agent)
        if group is None:
            message = f"no Gateway has pods with the service account {account}"
            raise NodeRejected(grpc.StatusCode.PERMISSION_DENIED, message)
        return policy_servers.group_of(group) if node.cluster == NODE_CLUSTER else group


def _token(context: Context) -> str:
    """Return the bearer token of a stream (RFC 6750)."""
    metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
    scheme, _, token = metadata.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
