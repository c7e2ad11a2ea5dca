"""One HTTP/2 connection of a gRPC server, without IO: bytes in, events and bytes out.

Laws:
- No code here reads a clock, a socket or a loop.
- Memory is bounded by `ServerLimits`, whatever the peer sends.
- A request that the peer cancelled counts against its streams until our work on it has ended. So a peer gains nothing
  by resetting streams.
- A stream has one message with the caller at a time. The others stay in its window, so a peer cannot send faster than
  they are handled. While responses wait for the peer's window, no further message is handled.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from filters.unary import RpcError
from xds_server.unary_server import frames, grpc
from xds_server.unary_server.events import (
    Began,
    Cancelled,
    Ended,
    Event,
    Message,
    Request,
    ServerLimits,
    Stream,
    Unread,
)
from xds_server.unary_server.fields import FieldDecoder, check_trailers
from xds_server.unary_server.frames import Code, ConnectionFault, Frame, Setting, StreamFault
from xds_server.unary_server.incoming import Incoming
from xds_server.unary_server.outgoing import Outgoing

MOST_REMEMBERED = 128
"""The number of streams that we reset and remember."""
_LAST_PING = b"draining"


class Connection:
    """The server's side of one connection.

    `receive` takes bytes and returns events. `answer`, `fail`, `refuse` and `release` end requests. `take` returns
    the bytes to send. If `closed` is true, the caller sends the remaining bytes and ends the connection.

    Requests to the paths in `streaming` are streams: they begin with Began, and each Message or Ended is followed by
    any number of `respond` and one of `proceed`, `finish` and `fail`.
    """

    def __init__(self, limits: ServerLimits | None = None, streaming: Container[bytes] = ()) -> None:
        self.limits = limits or ServerLimits()
        self._streaming = streaming
        self._held: dict[int, None] = {}
        """Streams that wait until the peer reads more of the responses."""
        self.closed = False
        self.draining = False
        self._ending = False
        """True if the peer knows which request is the last."""
        self._incoming = Incoming(self.limits)
        self._outgoing = Outgoing()
        self._decoder = FieldDecoder(self.limits.max_header_block, self.limits.field_table)
        self._streams: dict[int, Stream] = {}
        self._last = 0
        self._expects_settings = True
        self._reset: dict[int, None] = {}
        """Streams that we reset recently. Frames that were already under way for them are ignored."""
        self._idle_frames = 0
        self._events: list[Event] = []
        self._handlers: dict[int, Callable[[int, int, bytes], None]] = {
            Frame.DATA.value: self._data,
            Frame.HEADERS.value: self._headers,
            Frame.PRIORITY.value: self._priority,
            Frame.RST_STREAM.value: self._rst_stream,
            Frame.SETTINGS.value: self._settings,
            Frame.PUSH_PROMISE.value: self._push_promise,
            Frame.PING.value: self._ping,
            Frame.GOAWAY.value: self._goaway,
            Frame.WINDOW_UPDATE.value: self._window_update,
            Frame.CONTINUATION.value: self._continuation,
        }
        mine = {
            Setting.HEADER_TABLE_SIZE: self.limits.field_table,
            Setting.MAX_CONCURRENT_STREAMS: self.limits.max_streams,
            Setting.INITIAL_WINDOW_SIZE: self._incoming.stream_window,
            Setting.MAX_FRAME_SIZE: self.limits.max_frame,
            Setting.MAX_HEADER_LIST_SIZE: self.limits.max_header_block,
        }
        self._outgoing.add(frames.settings(mine))
        if self.limits.window > 65_535:
            self._outgoing.add(frames.window_update(0, self.limits.window - 65_535))

    @property
    def active(self) -> int:
        """The number of requests in progress, cancelled ones included."""
        return len(self._streams)

    def receive(self, data: bytes) -> list[Event]:
        """Handle bytes from the peer. Never raises: a fault ends the stream or the connection."""
        if self.closed:
            return []
        try:
            self._read(data)
        except ConnectionFault as fault:
            self._close(fault.code, str(fault))
        events, self._events = self._events, []
        return events

    def take(self) -> bytes:
        """Return the bytes to send now."""
        return self._outgoing.take()

    def wanted(self, stream: int) -> bool:
        """True if the client still waits for the response. If it does not, the request ends with this call."""
        state = self._streams.get(stream)
        if state is not None and state.reset:
            self.release(stream)
        return state is not None and not state.reset

    def answer(self, stream: int, body: bytes) -> None:
        """Respond with a message."""
        framed = grpc.framed(body)
        state = self._streams.get(stream)
        if (
            state is not None
            and not state.reset
            and not state.waiting
            and self._outgoing.at_once(stream, state, framed)
        ):
            self._finished(stream)
            return
        parts = [(Frame.HEADERS, grpc.HEADERS), (Frame.DATA, framed), (Frame.HEADERS, grpc.TRAILERS)]
        self._send(stream, [(int(kind), payload) for kind, payload in parts])

    def fail(self, stream: int, code: int, message: str) -> None:
        """End a request or a stream with a gRPC status, without a message."""
        state = self._streams.get(stream)
        late = state is not None and state.answered
        self._send(stream, [(int(Frame.HEADERS), (grpc.failed_late if late else grpc.failed)(code, message))])

    def respond(self, stream: int, body: bytes) -> None:
        """Send a message of a stream."""
        state = self._streams.get(stream)
        if state is None or state.reset or self.closed:
            return
        framed = grpc.framed(body)
        if self._outgoing.fits(state, len(framed)):
            self._outgoing.message(stream, state, framed)
            return
        parts = [(int(Frame.DATA), framed)]
        if not state.answered:
            state.answered = True
            parts.insert(0, (int(Frame.HEADERS), grpc.HEADERS))
        self._outgoing.send(stream, state, parts)

    def finish(self, stream: int) -> None:
        """End a stream with the status OK."""
        state = self._streams.get(stream)
        fields = grpc.TRAILERS if state is not None and state.answered else grpc.HEADERS + grpc.TRAILERS
        self._send(stream, [(int(Frame.HEADERS), fields)])

    def proceed(self, stream: int) -> Event | None:
        """Return the next Message of a stream, or Ended, if it is there. If it is not, `receive` returns it later."""
        state = self._streams.get(stream)
        if state is None or state.reset:
            return None
        state.busy = False
        return self._next(stream, state)

    def last(self, stream: int) -> bool:
        """True if the client has sent no more than the message that is with the caller, and ended the stream."""
        state = self._streams.get(stream)
        return state is not None and state.ended and not state.body and not state.answered

    def refuse(self, stream: int, status: int) -> None:
        """Respond with an HTTP status, because the request is not gRPC."""
        self._send(stream, [(int(Frame.HEADERS), grpc.refused(status))])

    def release(self, stream: int) -> None:
        """Note that the work on a cancelled request has ended."""
        self._streams.pop(stream, None)

    @property
    def began(self) -> bool:
        """True if the peer has sent its preface."""
        return self._incoming.began

    def ping(self) -> None:
        """Send a PING to find out if the peer is alive."""
        self._outgoing.add(frames.frame(Frame.PING, 0, 0, bytes(8)))

    def drain(self) -> None:
        """Accept no new requests. Requests in progress or under way are finished (section 6.8).

        The first GOAWAY announces the end. The second one names the last request; it is sent after the peer has
        acknowledged a PING, so that no request is under way any more.
        """
        if not self.draining and not self.closed:
            self.draining = True
            self._outgoing.add(frames.goaway(frames.LARGEST_WINDOW, Code.NO_ERROR))
            self._outgoing.add(frames.frame(Frame.PING, 0, 0, _LAST_PING))
            if not self.began:
                self._end()

    def _end(self) -> None:
        if self.draining and not self._ending:
            self._ending = True
            self._outgoing.add(frames.goaway(self._last, Code.NO_ERROR))
            self._close_if_drained()

    # --- streams --------------------------------------------------------------------------------------------------

    def _go_on(self, stream: int, state: Stream) -> None:
        event = None if state.busy else self._next(stream, state)
        if event is not None:
            self._events.append(event)

    def _next(self, stream: int, state: Stream) -> Event | None:
        if state.waiting or self._outgoing.waiting > self.limits.max_answer_buffer:
            self._held[stream] = None
            return None
        try:
            body = self._message(stream, state)
        except RpcError as error:
            self.fail(stream, error.code, error.message)
            return Cancelled(stream)
        if body is not None:
            state.busy = True
            self._idle_frames = 0
            return Message(stream, body)
        if state.ended:
            state.busy = True
            return Ended(stream)
        return None

    def _message(self, stream: int, state: Stream) -> bytes | None:
        """Take the next complete message off a stream, and return its bytes to the windows. Raises RpcError."""
        if len(state.body) < 5:
            if state.body and state.ended:
                raise RpcError(grpc.Status.INTERNAL, "the last message is incomplete")
            return None
        size = grpc.message_size(state.body, self.limits.max_message) + 5
        if len(state.body) < size:
            if state.ended:
                raise RpcError(grpc.Status.INTERNAL, "the last message is incomplete")
            self._return(stream, state, size)
            return None
        body = bytes(state.body[5:size])
        state.drop(size)
        state.unreturned += size
        self._consumed(size)
        if not state.ended:
            self._return(stream, state, 0)
        return body

    def _return(self, stream: int, state: Stream, needed: int) -> None:
        """Return handled bytes to a stream's window if half of it is used, or if its next message needs them."""
        window = self._incoming.stream_window
        if state.unreturned and (state.unreturned > window // 2 or needed > window - state.unreturned):
            self._outgoing.add(frames.window_update(stream, state.unreturned))
            state.unreturned = 0

    def _release_held(self) -> None:
        """Go on with streams for which the peer has read enough."""
        for stream in list(self._held):
            state = self._streams.get(stream)
            if state is None or state.reset:
                del self._held[stream]
            elif not state.waiting and self._outgoing.waiting <= self.limits.max_answer_buffer:
                del self._held[stream]
                self._go_on(stream, state)

    # --- sending --------------------------------------------------------------------------------------------------

    def _send(self, stream: int, parts: list[tuple[int, bytes]]) -> None:
        state = self._streams.get(stream)
        if state is None:
            return
        if state.reset or self.closed:
            self.release(stream)
            self._close_if_drained()
            return
        state.open, state.busy = False, True
        if self._outgoing.send(stream, state, parts):
            self._finished(stream)
        if self._outgoing.waiting > self.limits.max_answer_buffer:
            self._close(Code.ENHANCE_YOUR_CALM, "responses are not read")

    def _finished(self, stream: int) -> None:
        state = self._streams.pop(stream)
        if not state.ended:  # a response before the end of its request (8.1)
            self._outgoing.add(frames.rst_stream(stream, Code.NO_ERROR))
            self._remember(stream)
        if state.streams or not state.ended:
            self._consumed(len(state.body))
        self._idle_frames = 0
        self._close_if_drained()

    def _close_if_drained(self) -> None:
        self.closed = self.closed or (self._ending and not self._streams)

    def _close(self, code: Code, message: str) -> None:
        if not self.closed:
            self.closed = True
            self._outgoing.add(frames.goaway(self._last, code, message))
        for stream, state in self._streams.items():
            if (state.streams or (state.ended and not state.waiting)) and not state.reset:
                self._events.append(Cancelled(stream))
                state.reset = True

    # --- receiving ------------------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        incoming, handlers = self._incoming, self._handlers
        for kind, flags, stream, payload in incoming.frames(data):
            if self._expects_settings:
                self._first(kind, flags)
            if incoming.block is not None:
                incoming.check_block(kind, stream)
            try:
                handlers.get(kind, self._unknown)(flags, stream, payload)
            except StreamFault as fault:
                self._fault(fault)
            if self.closed:
                return

    def _first(self, kind: int, flags: int) -> None:
        """Raise ConnectionFault if the first frame is not SETTINGS."""
        if kind != Frame.SETTINGS or flags & frames.ACK:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "the first frame must be SETTINGS")
        self._expects_settings = False

    def _unknown(self, _flags: int, _stream: int, _payload: bytes) -> None:
        """Ignore a frame of an unknown type (section 4.1)."""
        self._idle()

    def _fault(self, fault: StreamFault) -> None:
        self._idle()
        self._outgoing.add(frames.rst_stream(fault.stream, fault.code))
        self._remember(fault.stream)
        self._forget(fault.stream)

    def _remember(self, stream: int) -> None:
        self._reset[stream] = None
        if len(self._reset) > MOST_REMEMBERED:
            del self._reset[next(iter(self._reset))]

    def _forget(self, stream: int) -> None:
        """Forget a stream that has ended for the peer. Our work on it may still go on."""
        state = self._streams.get(stream)
        if state is None or state.reset:
            return
        if state.streams:
            self._outgoing.forget(state)
            self._consumed(len(state.body))
            state.waiting, state.body = None, b""
        if state.streams or (state.ended and not state.waiting):
            state.reset = True
            self._events.append(Cancelled(stream))
            return
        self._outgoing.forget(state)
        self._consumed(0 if state.ended else len(state.body))
        del self._streams[stream]
        self._close_if_drained()

    def _idle(self) -> None:
        self._idle_frames += 1
        if self._idle_frames > self.limits.max_idle_frames:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "frames without progress")

    def _consumed(self, size: int) -> None:
        given = self._incoming.consumed(size)
        if given:
            self._outgoing.add(frames.window_update(0, given))

    # --- frames ---------------------------------------------------------------------------------------------------

    def _data(self, flags: int, stream: int, payload: bytes) -> None:
        self._known(stream, Frame.DATA)
        self._incoming.take_in(len(payload))
        data = frames.unpadded(payload, flags, Frame.DATA)
        state = self._streams.get(stream)
        if state is None or state.ended:
            self._consumed(len(payload))
            if stream in self._reset:
                self._idle()
                return
            raise StreamFault(stream, Code.STREAM_CLOSED, "DATA on a closed stream")
        if len(data) < len(payload):
            self._consumed(len(payload) - len(data))
        if not data and not flags & frames.END_STREAM:
            self._idle()
        state.add(data)
        if len(state.body) + state.unreturned > self._incoming.stream_window:
            raise StreamFault(stream, Code.FLOW_CONTROL_ERROR, "more than the stream's window")
        if state.streams:
            state.size += len(data)
        if flags & frames.END_STREAM:
            self._whole(stream, state)
        elif state.streams:
            self._go_on(stream, state)
        elif len(state.body) >= 5 and int.from_bytes(state.body[1:5], "big") > self.limits.max_message:
            self.fail(
                stream,
                grpc.Status.RESOURCE_EXHAUSTED,
                f"a message is at most {self.limits.max_message} bytes",
            )
        if self._incoming.full:
            self._make_room()

    def _make_room(self) -> None:
        """Return what is possible to the window, or else fail a request so that earlier requests can become complete.

        Without this, a peer that sends many requests in pieces would wait forever: all have begun, and none has room.
        """
        self._consumed(0)
        if self._incoming.full:
            for stream, state in reversed(self._streams.items()):
                if state.body and not state.ended:
                    self.fail(stream, grpc.Status.RESOURCE_EXHAUSTED, "too many incomplete requests")
                    if state.streams:
                        self._events.append(Cancelled(stream))
                    return

    def _whole(self, stream: int, state: Stream) -> None:
        length = state.fields.content_length
        if length is not None and length != (state.size if state.streams else len(state.body)):
            raise StreamFault(stream, Code.PROTOCOL_ERROR, "the content length does not match")
        state.ended = True
        if state.streams:
            self._go_on(stream, state)
            return
        self._consumed(len(state.body))
        body, state.body = bytes(state.body), b""
        self._events.append(Request(stream, state.fields, body))

    def _known(self, stream: int, kind: Frame) -> None:
        """Raise ConnectionFault if a frame of this kind is for a stream that has not begun."""
        if stream == 0 or stream > self._last or stream % 2 == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"{kind.name} on a stream that has not begun")

    def _headers(self, flags: int, stream: int, payload: bytes) -> None:
        if stream % 2 == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a client's streams must have odd numbers")
        block = frames.unprioritized(frames.unpadded(payload, flags, Frame.HEADERS), flags)
        if flags & frames.END_HEADERS:
            self._fields(stream, flags, block)
        else:
            self._incoming.begin_block(stream, flags, block)

    def _continuation(self, flags: int, stream: int, payload: bytes) -> None:
        self._idle()
        whole = self._incoming.go_on_block(flags, payload)
        if whole is not None:
            self._fields(stream, *whole)

    def _fields(self, stream: int, flags: int, block: bytes) -> None:
        if stream <= self._last:
            self._trailers(stream, flags, block)
            return
        self._last = stream
        fields = self._decoder.request(stream, block)
        if self._ending:
            return
        if len(self._streams) >= self.limits.max_streams:
            raise StreamFault(stream, Code.REFUSED_STREAM, "too many streams")
        state = self._streams[stream] = Stream(fields, self._outgoing.stream_window)
        if fields.path in self._streaming and grpc.is_call(fields):
            state.streams = state.open = True
            self._events.append(Began(stream, fields))
        if flags & frames.END_STREAM:
            self._whole(stream, state)

    def _trailers(self, stream: int, flags: int, block: bytes) -> None:
        pairs = self._decoder.pairs(block)
        state = self._streams.get(stream)
        if state is None:
            if stream in self._reset:
                self._idle()
                return
            raise ConnectionFault(Code.STREAM_CLOSED, "HEADERS on a closed stream")
        if state.ended:
            raise StreamFault(stream, Code.STREAM_CLOSED, "HEADERS after the end of the request")
        if not flags & frames.END_STREAM:
            raise StreamFault(stream, Code.PROTOCOL_ERROR, "trailers must end the stream")
        check_trailers(stream, pairs)
        self._whole(stream, state)

    def _priority(self, _flags: int, stream: int, payload: bytes) -> None:
        self._idle()
        if stream == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            raise StreamFault(stream, Code.FRAME_SIZE_ERROR, "PRIORITY must have 5 bytes")

    def _rst_stream(self, _flags: int, stream: int, payload: bytes) -> None:
        self._known(stream, Frame.RST_STREAM)
        if len(payload) != 4:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "RST_STREAM must have 4 bytes")
        self._idle()
        state = self._streams.get(stream)
        if (state.waiting and not state.streams) if state is not None else stream not in self._reset:
            self._events.append(Unread(stream))
        self._forget(stream)
        self._release_held()

    def _push_promise(self, _flags: int, _stream: int, _payload: bytes) -> None:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a client must not push")

    def _ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream != 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "PING must have 8 bytes")
        self._idle()
        if not flags & frames.ACK:
            self._outgoing.add(frames.frame(Frame.PING, frames.ACK, 0, payload))
        elif payload == _LAST_PING:
            self._end()

    def _goaway(self, _flags: int, stream: int, payload: bytes) -> None:
        if stream != 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "GOAWAY must have at least 8 bytes")
        self._idle()

    def _window_update(self, _flags: int, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "WINDOW_UPDATE must have 4 bytes")
        increment = int.from_bytes(payload, "big") & 0x7FFF_FFFF
        if stream == 0:
            self._outgoing.widen(increment)
            self._idle()
            self._flush_all()
            return
        self._known(stream, Frame.WINDOW_UPDATE)
        if increment == 0:
            raise StreamFault(stream, Code.PROTOCOL_ERROR, "an increment of 0")
        state = self._streams.get(stream)
        if state is None:
            self._idle()
            return
        state.window += increment
        if state.window > frames.LARGEST_WINDOW:
            raise StreamFault(stream, Code.FLOW_CONTROL_ERROR, "the window overflows")
        if state.waiting:
            self._flush(stream, state)
            self._release_held()

    def _flush(self, stream: int, state: Stream) -> None:
        if self._outgoing.flush(stream, state) and not state.open:
            self._finished(stream)

    def _flush_all(self) -> None:
        if self._outgoing.waiting:
            for stream, state in list(self._streams.items()):
                if state.waiting:
                    self._flush(stream, state)
            self._release_held()

    def _settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream != 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "SETTINGS on a stream")
        if len(payload) % 6 or (flags & frames.ACK and payload):
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "SETTINGS has an invalid size")
        self._idle()
        if flags & frames.ACK:
            return
        self._outgoing.settings(payload, self._streams.values())
        self._flush_all()
