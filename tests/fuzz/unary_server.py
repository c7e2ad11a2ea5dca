"""A fuzz target for the HTTP/2 core, with a corpus: ``python -m tests.fuzz.unary_server [SECONDS]``.

It runs under atheris where that is installed (``make fuzz``), which looks for inputs that reach new code, and otherwise
changes the corpus at random. An input that breaks a law is left in the folder where it was started.
"""

from __future__ import annotations

import gc
import importlib.util
import random
import sys
import tempfile
import time
from pathlib import Path
from types import FunctionType

from xds_server.unary_server import frames
from xds_server.unary_server.connection import Connection
from xds_server.unary_server.events import Cancelled, Ended, Event, Message, Request, ServerLimits

PACKAGE = "xds_server.unary_server"
CORPUS = Path(__file__).parent / "corpus"
LIMITS = ServerLimits(
    max_message=2000,
    max_streams=8,
    max_header_block=1000,
    window=70_000,
    max_answer_buffer=5000,
    max_idle_frames=500,
)
INTERESTING = (0, 1, 4, 5, 8, 9, 0x20, 0x2C, 0x7F, 0x80, 0x82, 0xFF)


def play(data: bytes) -> Connection:
    """Say these bytes to a server in two pieces; the first byte is where they part. Raises where a law is broken.

    If it is odd, all methods are streams.
    """
    cut = data[0] if data else 0
    connection = Connection(LIMITS, _Everything() if cut % 2 else ())
    for piece in (data[1 : 1 + cut], data[1 + cut :]):
        for event in connection.receive(piece):
            _answer(connection, event)
        assert connection.active <= LIMITS.max_streams
        if not connection.closed:
            assert len(connection._incoming._rest) <= LIMITS.max_frame + frames.HEAD
            if not cut % 2:
                assert connection._outgoing.waiting <= LIMITS.max_answer_buffer
            held = [len(state.body) for state in connection._streams.values()]
            assert all(size <= LIMITS.max_message + 5 for size in held)
    _whole_frames(connection.take())
    return connection


class _Everything:
    """Contains every path."""

    def __contains__(self, path: object) -> bool:
        return True


def _answer(connection: Connection, event: Event) -> None:
    following: Event | None = event
    while following is not None:
        stream, event, following = following.stream, following, None
        if isinstance(event, Request) and connection.wanted(stream):
            connection.answer(stream, event.body)
        elif isinstance(event, Message):
            connection.respond(stream, event.body)
            following = connection.proceed(stream)
        elif isinstance(event, Ended):
            connection.finish(stream)
        elif isinstance(event, Cancelled):
            connection.release(stream)


def _whole_frames(sent: bytes) -> None:
    at = 0
    while at < len(sent):
        at += frames.HEAD + int.from_bytes(sent[at : at + 3], "big")
    assert at == len(sent)


def changed(data: bytes, chance: random.Random) -> bytes:
    """The bytes with some of them changed, taken out, doubled or put in."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(out) + 1)
        kind = chance.randrange(4)
        if kind == 0 and at < len(out):
            out[at] = chance.choice((*INTERESTING, chance.randrange(256)))
        elif kind == 1:
            del out[at : at + chance.randint(1, 12)]
        elif kind == 2:
            out[at:at] = out[at : at + chance.randint(1, 60)]
        else:
            out[at:at] = chance.randbytes(chance.randint(1, 9))
    return bytes(out)


def corpus() -> list[bytes]:
    """The kept inputs."""
    return [file.read_bytes() for file in sorted(CORPUS.iterdir())]


def main(argv: list[str]) -> None:
    """Run for some seconds."""
    seconds = int(argv[1]) if len(argv) > 1 else 60
    if importlib.util.find_spec("atheris") is not None:
        _guided(argv[0], seconds)
    else:
        _at_random(seconds)


def _guided(program: str, seconds: int) -> None:
    """By what of the package each input reaches. What is found on the way is for this run only."""
    import atheris

    for one in gc.get_objects():
        if isinstance(one, FunctionType) and str(one.__module__).startswith(PACKAGE):
            atheris.instrument_func(one)
    with tempfile.TemporaryDirectory() as found:
        atheris.Setup([program, f"-max_total_time={seconds}", found, str(CORPUS)], _one)
        atheris.Fuzz()


def _one(data: bytes) -> None:
    play(data)


def _at_random(seconds: int) -> None:
    seed = time.time_ns()
    chance, inputs, count = random.Random(seed), corpus(), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = changed(chance.choice(inputs), chance)
        try:
            play(data)
        except Exception:
            Path("fuzz-failure.bin").write_bytes(data)
            sys.stderr.write("the input is in fuzz-failure.bin\n")
            raise
        count += 1
    sys.stdout.write(f"{count} inputs, seed {seed}\n")


if __name__ == "__main__":
    main(sys.argv)
