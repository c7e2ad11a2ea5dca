"""The names of the service that decodes bodies, and of the reasons why it does not."""

from __future__ import annotations

from typing import Any

from filters.policy_server import POLICY_SERVER

BODIES = "gateway.bodies.v1.Bodies"
"""The gRPC service of policy servers that decodes bodies (protos/bodies.proto)."""
DECODE = f"/{BODIES}/Decode"
TIMEOUT = 2_000
"""Milliseconds for a call to the policy server, which decodes a body."""
DEFAULT_SIZE, LARGEST_SIZE = 1_000_000, 4_000_000
"""Bytes of a body that is read as a whole."""
FAILURES = {
    "unsupported_content_coding": ("The content coding is not supported", 415),
    "malformed_content_coding": ("The body does not have its content coding", 400),
    "body_too_large": ("The request body is too large", 413),
}
"""The title and the status of the reasons for which a body is rejected."""
CONSTANTS: dict[str, Any] = {
    "CLUSTER": POLICY_SERVER,
    "DECODE": DECODE,
    "TIMEOUT": TIMEOUT,
    "CODINGS": "gzip, br, zstd, deflate",
}
"""The constants of decode.lua."""
SCRIPTS = ("grpc_call.lua", "request_values.lua", "decompression/decode.lua")
"""The files of a script that decodes."""
