"""xds watch: a client of any xDS server that prints the responses."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

from xds_server.cli import flags, output
from xds_server.errors import EnvironmentFailed, WrongUsage


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add = parser.add_argument
    add(
        "type",
        help="type of resource, such as cluster (or CDS), endpoint, listener, route or secret, "
        "or the full name of a message",
    )
    add("names", nargs="*", help="names of resources; without any: all resources")
    flags.add_renamed(
        parser,
        "--xds",
        "--server",
        metavar="ADDRESS",
        default=flags.XDS,
        help="address of the xDS server: HOST:PORT or unix:/PATH",
    )
    flags.add_node(parser, "xds-watch", "this client")
    add(
        "--delta",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="receive only what changes (delta xDS), not everything each time (state of the world)",
    )
    add("--nack", action="store_true", help="reject every response, to see what the server does")
    add("--once", action="store_true", help="end after the first response")
    add(
        "--ca",
        type=Path,
        metavar="FILE",
        help="PEM file of the authorities of the server's certificate: connects over TLS",
    )
    add("--certificate", type=Path, metavar="FILE", help="PEM file of the certificate that this client shows")
    add("--private-key", type=Path, metavar="FILE", help="PEM file of the certificate's private key")
    flags.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print responses until Ctrl-C. Raises EnvironmentFailed, WrongUsage."""
    import grpc

    try:
        asyncio.run(_watch(arguments))
    except grpc.aio.AioRpcError as error:
        raise EnvironmentFailed(f"{arguments.xds}: {error.details()} ({error.code().name})") from None
    return 0


async def _watch(arguments: argparse.Namespace) -> None:
    from envoy.config.core.v3 import base_pb2

    from xds_server.discovery.stream import Protocol
    from xds_server.serving import watch_client

    client = watch_client.WatchClient(
        _type(arguments.type),
        arguments.names,
        Protocol.DELTA if arguments.delta else Protocol.SOTW,
        node=base_pb2.Node(id=arguments.node_id, cluster=arguments.node_cluster),
        reject="rejected by xds watch --nack" if arguments.nack else None,
    )
    async with aclosing(watch_client.watch(arguments.xds, client, _credentials(arguments))) as updates:  # type: ignore[type-var]
        async for update in updates:
            _print(update, arguments.output)
            if arguments.once:
                return


def _type(word: str) -> Any:
    from xds_server.discovery import types

    known = {**types.BY_SHORT, **{listed.name: listed for listed in types.TYPES}}
    if word.lower() in known:
        return known[word.lower()]
    if "." not in word:
        raise WrongUsage(
            f"there is no type '{word}'; known: {', '.join(listed.name for listed in types.TYPES)}"
        )
    return types.of_url(word)


def _credentials(arguments: argparse.Namespace) -> Any:
    import grpc

    if arguments.ca is None:
        return None
    try:
        files = [
            path.read_bytes() if path is not None else None
            for path in (arguments.ca, arguments.private_key, arguments.certificate)
        ]
    except OSError as error:
        raise WrongUsage(f"{error.filename}: {error.strerror}") from None
    return grpc.ssl_channel_credentials(*files)


def _print(update: Any, form: str) -> None:
    if form == "json":
        print(json.dumps(_as_json(update)), flush=True)
        return
    if form == "yaml":
        print("---")
        output.data(_as_json(update), form)
        sys.stdout.flush()
        return
    print(f"version {update.version}  nonce {update.nonce}")
    for resource in update.resources:
        print(f"  + {resource.name}  {resource.version}  {len(resource.body.value)} bytes")
    for name in update.removed:
        print(f"  - {name}")
    sys.stdout.flush()


def _as_json(update: Any) -> dict[str, Any]:
    return {
        "version": update.version,
        "nonce": update.nonce,
        "resources": [
            {"name": resource.name, "version": resource.version, "resource": _resource(resource.body)}
            for resource in update.resources
        ],
        "removed": list(update.removed),
    }


class _Pool:
    """The default descriptor pool, which first imports the types that messages contain as Any."""

    def FindMessageTypeByName(self, full_name: str) -> Any:  # noqa: N802 - the name that json_format calls
        from google.protobuf import descriptor_pool

        from xds_server.gateway import raw

        raw.known(full_name)
        return descriptor_pool.Default().FindMessageTypeByName(full_name)


def _resource(body: Any) -> Any:
    """Return the content as JSON. For secrets and for unknown types, return only the type."""
    from google.protobuf import json_format

    from xds_server.discovery.types import SECRET
    from xds_server.serving import watch_client

    message = watch_client.unpacked(body)
    if message is None or body.type_url == SECRET.url:
        return {"@type": body.type_url}
    try:
        return json_format.MessageToDict(
            message, preserving_proto_field_name=True, descriptor_pool=cast("Any", _Pool())
        )
    except TypeError:  # an Any inside whose type the codec does not have
        return {"@type": body.type_url}
