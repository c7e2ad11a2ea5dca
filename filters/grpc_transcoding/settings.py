"""What a user writes below grpc_transcoding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from filters.grpc_transcoding import templates
from filters.grpc_transcoding.sources import DescriptorFile, ProtoFile
from filters.language import Mistake, Size, option

VERBS = ("get", "put", "post", "delete", "patch")
_NO_METHODS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The HTTP request that calls a method, as in a google.api.HttpRule."""

    get: str | None = option("A path template, such as `/v1/{name=shelves/*}`.", default=None)
    put: str | None = option("A path template.", default=None)
    post: str | None = option("A path template.", default=None)
    delete: str | None = option("A path template.", default=None)
    patch: str | None = option("A path template.", default=None)
    body: str = option(
        "The field of the request message that is the HTTP body; `*` for all fields that the path does not bind. "
        "Default: no body, and fields are query parameters.",
        default="",
    )
    response_body: str = option(
        "The field of the response message that is the HTTP body: one of type google.api.HttpBody. Default: the "
        "whole message.",
        default="",
    )

    @property
    def verb(self) -> str:
        """The key of the HTTP method, such as ``get``."""
        return next(verb for verb in VERBS if getattr(self, verb) is not None)

    @property
    def template(self) -> str:
        """The path template."""
        return str(getattr(self, self.verb))

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake unless there is one path template, and a mistake of this template."""
        given = [verb for verb in VERBS if getattr(self, verb) is not None]
        if len(given) != 1:
            yield Mistake(
                "exactly one of get, put, post, delete and patch is needed", "write get: /v1/{name}"
            )
            return
        try:
            templates.parse(self.template)
        except Mistake as mistake:
            yield Mistake(mistake.message, mistake.remedy, path=(self.verb,), value=self.template)


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonFormat:
    """How response messages are written as JSON (protobuf's JSON mapping)."""

    default_values: bool = option("Write fields with default values too (0, false, empty).", default=False)
    names: Literal["json", "proto"] = option(
        "Names of fields: `json` is userName, `proto` is user_name as in the .proto file.", default="json"
    )
    enums: Literal["names", "numbers"] = option("How enumerators are written.", default="names")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bindings:
    """gRPC methods with the HTTP requests that stand for them."""

    protos: tuple[ProtoFile, ...] = option(
        "`.proto` files in the gateway's folder. They are compiled when the gateway is read.", default=()
    )
    descriptors: DescriptorFile | None = option(
        "A descriptor set, as `protoc --include_imports --descriptor_set_out=FILE` writes it.", default=None
    )
    services: tuple[str, ...] = option(
        "Full names of services. Default: all with a method that has a google.api.http annotation or is in `methods`.",
        default=(),
        narrows=True,
    )
    methods: Mapping[str, Binding | tuple[Binding, ...]] = option(
        "Bindings by `package.Service/Method`, for methods without a google.api.http annotation. They replace one.",
        default=_NO_METHODS,
    )
    prefix: str = option(
        "A path before those of all templates, such as `/api`.",
        default="",
        pattern=r"(/[A-Za-z0-9._~-]+)*",
        shape="a path such as /api",
    )

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes between the keys."""
        if self.descriptors is not None and self.protos:
            yield Mistake("'protos' and 'descriptors' exclude each other", "keep one")
        elif self.descriptors is None and not self.protos:
            yield Mistake("'protos' or 'descriptors' is needed", "write protos: [shop.proto]")
        for name, bindings in self.methods.items():
            if name.count("/") != 1:
                yield Mistake(
                    "not a method's name", "write package.Service/Method", path=("methods", name), value=name
                )
            if bindings == ():
                yield Mistake("no binding", "write {get: /v1/{name}}", path=("methods", name))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReverseSettings(Bindings):
    """gRPC methods that a REST service implements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscodingSettings(Bindings):
    """gRPC methods that REST clients can call."""

    rpc_paths: bool = option(
        "Methods can also be called as `POST /package.Service/Method` with the message as JSON body.",
        default=False,
    )
    streams: Literal["ndjson", "sse"] = option(
        "How server streams are sent: one JSON object in each line, or server-sent events.", default="ndjson"
    )
    json: JsonFormat = option("How messages are written as JSON.", default=JsonFormat())
    trailing_metadata: bool = option(
        "Send the trailing metadata of unary calls as response headers. Without it a response costs less.",
        default=True,
    )
    ignore_query: tuple[str, ...] = option(
        "Query parameters that are for no field, such as `api_key`. Any other unknown parameter gets 400.",
        default=(),
    )
    unknown_fields: Literal["reject", "ignore"] = option(
        "What happens to a JSON body with a name that the message does not have: 400, or the name is ignored.",
        default="reject",
    )
    for_policies: bool = option(
        "A policy in Python of the route gets the method and the message of each call (`request.grpc`).",
        default=False,
    )
    colons_in_ids: bool = option(
        "A colon in the last segment belongs to the segment unless a verb (`:cancel`) follows it. Default: what "
        "follows a colon is a verb, and an unknown verb gets 404.",
        default=False,
    )
    max_message: Size = option(
        "The size of the largest request (413 above it) and response (500 above it) that is no stream.",
        default=Size(4 * 1024 * 1024),
        minimum=1,
        maximum=2**32 - 1,
    )
