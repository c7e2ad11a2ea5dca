"""The gRPC service of tests/support/protos/shop.proto: it answers with what it was asked, or with an error by name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, empty_pb2, json_format, message_factory
from google.rpc import error_details_pb2, status_pb2

from xds_server.sources.protoc import ProtoCompiler

PROTO = Path(__file__).with_name("protos") / "shop.proto"
DESCRIPTORS = ProtoCompiler()({PROTO.name: PROTO.read_bytes()})
_POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS).file:
    _POOL.Add(_file)
SPECIAL = "special"
"""The case special_status_message of gRPC's interoperability tests (grpc/doc/interop-test-descriptions.md)."""
ERRORS = {
    "missing": (grpc.StatusCode.NOT_FOUND, 'no "such" book: é'),
    "taken": (grpc.StatusCode.ALREADY_EXISTS, "taken"),
    "broken": (grpc.StatusCode.INTERNAL, ""),
    "slow": (grpc.StatusCode.DEADLINE_EXCEEDED, "slow"),
    "sold": (grpc.StatusCode.FAILED_PRECONDITION, "sold out"),
    "limited": (grpc.StatusCode.RESOURCE_EXHAUSTED, "later"),
    "foreign": (grpc.StatusCode.ABORTED, "50% foreign"),
    "late": (grpc.StatusCode.NOT_FOUND, "late"),
    SPECIAL: (grpc.StatusCode.UNKNOWN, "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"),
    "both": (grpc.StatusCode.NOT_FOUND, "with a message"),
}
"""The statuses of books whose names end so."""


def message(name: str) -> Any:
    """The class of a message of the shop."""
    full = name if "." in name else f"shop.v1.{name}"
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(full))


Book, BookRequest = message("Book"), message("BookRequest")


def _details(name: str) -> Iterator[any_pb2.Any]:
    if name == "sold":
        stock = message("OutOfStock")(isbn="1", left=0)
        yield any_pb2.Any(type_url="type.googleapis.com/shop.v1.OutOfStock", value=stock.SerializeToString())
    elif name == "limited":
        info = error_details_pb2.RetryInfo()
        info.retry_delay.seconds = 7
        packed = any_pb2.Any()
        packed.Pack(info)
        yield packed
    elif name == "foreign":
        yield any_pb2.Any(type_url="type.googleapis.com/other.v1.Unknown", value=b"\x0a\x01a")


def fail(name: str, context: grpc.ServicerContext) -> None:
    """End the call with the error of a book's name, if it has one."""
    kind = name.rpartition("/")[2]
    if kind not in ERRORS:
        return
    code, text = ERRORS[kind]
    trailing: list[tuple[str, str | bytes]] = [("x-shop", "closing")]
    if details := list(_details(kind)):
        status = status_pb2.Status(code=code.value[0], message=text, details=details)
        trailing.append(("grpc-status-details-bin", status.SerializeToString()))
    if kind == "late":
        context.send_initial_metadata((("x-first", "1"),))
    context.set_trailing_metadata(tuple(trailing))
    if kind == "both":
        context.set_code(code)
        context.set_details(text)
    else:
        context.abort(code, text)


class Shop:
    """A server with the service. `calls` are (method, request as JSON, metadata, seconds left)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any], dict[str, str], float]] = []
        self.release = threading.Event()
        handlers = {
            "GetBook": self._unary("GetBook"),
            "UpdateBook": self._unary("UpdateBook"),
            "CreateBook": self._unary("CreateBook"),
            "CheckBook": self._unary("CheckBook"),
            "Plain": self._unary("Plain"),
            "DeleteBook": self._unary("DeleteBook", empty_pb2.Empty),
            "Export": self._handler(grpc.unary_unary_rpc_method_handler, self._export, BookRequest),
            "Import": self._handler(grpc.unary_unary_rpc_method_handler, self._import, message("Upload")),
            "ListBooks": self._handler(grpc.unary_stream_rpc_method_handler, self._list, BookRequest),
            "AddBooks": self._handler(grpc.stream_unary_rpc_method_handler, self._add, Book),
        }
        services = (grpc.method_handlers_generic_handler("shop.v1.Shop", handlers),)
        self._server = grpc.server(futures.ThreadPoolExecutor(8), handlers=services)
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    @contextmanager
    def running(self) -> Iterator[Shop]:
        """The server, until the end."""
        self._server.start()
        try:
            yield self
        finally:
            self.release.set()
            self._server.stop(None).wait()

    def _handler(self, kind: Callable[..., Any], method: Callable[..., Any], request: Any) -> Any:
        return kind(
            method,
            request_deserializer=request.FromString,
            response_serializer=lambda one: one.SerializeToString(),
        )

    def _note(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        metadata = {name: str(value) for name, value in context.invocation_metadata()}
        plain = json_format.MessageToDict(request, descriptor_pool=_POOL)
        self.calls.append((method, plain, metadata, context.time_remaining()))

    def _unary(self, method: str, response: Any = None) -> Any:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            self._note(method, request, context)
            name = request.name or request.book.name
            fail(name, context)
            if name.endswith("never"):
                self.release.wait(30)
            if not name.endswith("both"):
                context.set_trailing_metadata((("x-shop", "open"), ("x-bytes-bin", b"\1\2")))
            if response is not None:
                return response()
            title = "x" * request.count if name.endswith("large") else request.book.title
            return Book(name=name, title=title or request.view, author_name=request.shelf_id, pages=2**60)

        return self._handler(grpc.unary_unary_rpc_method_handler, answer, BookRequest)

    def _export(self, request: Any, context: grpc.ServicerContext) -> Any:
        fail(request.name, context)
        return message("google.api.HttpBody")(content_type="text/csv", data=b"a,b\n")

    def _import(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note("Import", request, context)
        return Book(
            name=request.name, title=request.file.data.decode(), author_name=request.file.content_type
        )

    def _list(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self._note("ListBooks", request, context)
        for number in range(request.count):
            yield Book(name=f"{number}", title="é" * 20)
            if request.view == "slow":
                self.release.wait(30)
        fail(request.name, context)

    def _add(self, books: Iterator[Any], context: grpc.ServicerContext) -> Any:
        return Book(name=",".join(book.name for book in books))
