"""A gRPC client that finds its servers by xDS (``xds:///NAME``), in a process of its own: argv is the target and the method.

It makes one call for each line that it reads, and writes the answer or the status in a line.
"""

from __future__ import annotations

import sys

import grpc


def main(target: str, method: str) -> None:
    """Call until there is no more input."""
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(method)
        for _ in sys.stdin:
            try:
                answer = call(b"", timeout=20).decode()
            except grpc.RpcError as error:
                answer = repr(error).replace("\n", " ")
            sys.stdout.write(f"{answer}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
