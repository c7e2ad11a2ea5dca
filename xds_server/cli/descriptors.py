"""xds descriptors: the descriptor set of a running gRPC server, by server reflection, for `grpc_transcoding`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from xds_server.cli import flags, output
from xds_server.errors import EnvironmentFailed

REFLECTION = "grpc.reflection."
"""The beginning of the names of the services that serve the descriptors themselves."""
LONGEST = 30.0
"""Seconds for all answers of the server."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "address", metavar="ADDRESS", help="gRPC server with reflection: HOST:PORT or unix:/PATH"
    )
    parser.add_argument(
        "--file",
        type=Path,
        metavar="FILE",
        help="file that gets the descriptor set; default: standard output",
    )
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="FILE",
        help="PEM file of the authorities of its certificate: connects over TLS",
    )
    flags.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Fetch the descriptors. Raises EnvironmentFailed."""
    try:
        credentials = (
            None if arguments.ca is None else grpc.ssl_channel_credentials(arguments.ca.read_bytes())
        )
        services, files = _fetched(arguments.address, credentials)
        content = descriptor_pb2.FileDescriptorSet(file=files).SerializeToString(deterministic=True)
        if arguments.file is None:
            sys.stdout.buffer.write(content)
            return 0
        _write(arguments.file, content)
    except grpc.RpcError as error:
        raise EnvironmentFailed(f"{arguments.address} has no descriptors: {error.details()}") from None
    except OSError as error:
        raise EnvironmentFailed(f"{error.filename}: {error.strerror}") from None
    found = {"file": str(arguments.file), "services": services, "files": [file.name for file in files]}
    if arguments.output != "text":
        output.data(found, arguments.output)
    else:
        print(f"{arguments.file}: {output.counted(len(services), 'service')}: {', '.join(services)}")
    return 0


def _fetched(
    address: str, credentials: grpc.ChannelCredentials | None
) -> tuple[list[str], list[descriptor_pb2.FileDescriptorProto]]:
    """Return the names of the services, and their files with all imports, imports first."""
    channel = (
        grpc.insecure_channel(address) if credentials is None else grpc.secure_channel(address, credentials)
    )
    with channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest
        (listed,) = _answers(stub, [request(list_services="")])
        services = sorted(
            one.name for one in listed.list_services_response.service if not one.name.startswith(REFLECTION)
        )
        files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        wanted = [request(file_containing_symbol=name) for name in services]
        while wanted:
            for answer in _answers(stub, wanted):
                for content in answer.file_descriptor_response.file_descriptor_proto:
                    file = descriptor_pb2.FileDescriptorProto.FromString(content)
                    files[file.name] = file
            missing = {name for file in files.values() for name in file.dependency} - files.keys()
            wanted = [request(file_by_filename=name) for name in sorted(missing)]
    return services, _sorted(files)


def _answers(
    stub: reflection_pb2_grpc.ServerReflectionStub, requests: Iterable[reflection_pb2.ServerReflectionRequest]
) -> list[reflection_pb2.ServerReflectionResponse]:
    """Return the answer to each request. Raises RpcError, and EnvironmentFailed for an error in an answer."""
    answers = list(stub.ServerReflectionInfo(iter(requests), timeout=LONGEST))
    for answer in answers:
        if answer.HasField("error_response"):
            raise EnvironmentFailed(f"the server has no descriptor: {answer.error_response.error_message}")
    return answers


def _sorted(files: dict[str, descriptor_pb2.FileDescriptorProto]) -> list[descriptor_pb2.FileDescriptorProto]:
    result: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(name: str) -> None:
        if name not in result:
            for other in files[name].dependency:
                add(other)
            result[name] = files[name]

    for name in sorted(files):
        add(name)
    return list(result.values())


def _write(file: Path, content: bytes) -> None:
    """Replace a file at once, because a control plane may watch it."""
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as new:
        new.write(content)
    os.replace(new.name, file)  # noqa: PTH105 - a string and a path
