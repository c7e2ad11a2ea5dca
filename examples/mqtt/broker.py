"""A small broker for this example: MQTT 3.1.1 with QoS 0 and without wildcards. Run ``python broker.py 1884``."""

from __future__ import annotations

import asyncio
import sys

CONNECT, PUBLISH, SUBSCRIBE, PINGREQ, DISCONNECT = 1, 3, 8, 12, 14
"""Types of packets (MQTT 3.1.1 section 2.2.1)."""
subscribers: dict[str, set[asyncio.StreamWriter]] = {}
"""The connections by topic."""


async def packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one packet: its type and its content (MQTT 3.1.1 section 2.2)."""
    kind = (await reader.readexactly(1))[0] >> 4
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 127) << shift
        if byte < 128:
            return kind, await reader.readexactly(length)
        shift += 7


async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection."""
    try:
        while True:
            kind, body = await packet(reader)
            if kind == CONNECT:
                writer.write(b"\x20\x02\x00\x00")
            elif kind == SUBSCRIBE:
                topic = body[4 : 4 + int.from_bytes(body[2:4])].decode()
                subscribers.setdefault(topic, set()).add(writer)
                writer.write(b"\x90\x03" + body[:2] + b"\x00")
            elif kind == PUBLISH:
                topic = body[2 : 2 + int.from_bytes(body[:2])].decode()
                for other in subscribers.get(topic, ()):
                    other.write(bytes([PUBLISH << 4, len(body)]) + body)
            elif kind == PINGREQ:
                writer.write(b"\xd0\x00")
            elif kind == DISCONNECT:
                return
    except asyncio.IncompleteReadError:
        return
    finally:
        for writers in subscribers.values():
            writers.discard(writer)
        writer.close()


async def main(port: int) -> None:
    """Serve until cancelled."""
    server = await asyncio.start_server(client, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
