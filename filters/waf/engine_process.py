"""python -m filters.waf.engine_process FOLDER: an engine process, which answers frames on its standard input.

A fault of the engine, or a request that takes it too long, ends only this process.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

from filters.waf.engine import Engine
from filters.waf.frames import LENGTH, Load, Verdict, asked, frame


def serve(engine: Engine, source: BinaryIO, target: BinaryIO) -> None:
    """Answer until the source ends."""
    while len(length := source.read(LENGTH)) == LENGTH:
        message = asked.decode(source.read(int.from_bytes(length, "big")))
        try:
            if isinstance(message, Load):
                engine.load(message.profiles)
                verdict = Verdict()
            else:
                verdict = engine.inspect(message)
        except Exception as error:  # noqa: BLE001 - the policy server decides what a failure means
            verdict = Verdict(error=f"{type(error).__name__}: {error}")
        target.write(frame(verdict))
        target.flush()


if __name__ == "__main__":
    serve(Engine(Path(sys.argv[1])), sys.stdin.buffer, sys.stdout.buffer)
