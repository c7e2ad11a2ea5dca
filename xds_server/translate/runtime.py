"""The runtime of every Envoy with a bootstrap of ours: settings that are not in any resource."""

from __future__ import annotations

from envoy.config.bootstrap.v3 import bootstrap_pb2

from xds_server.gateway.model.regex import LARGEST


def runtime() -> bootstrap_pb2.LayeredRuntime:
    """Return settings that allow expressions as large as the language does, and changes of keys by an operator."""
    result = bootstrap_pb2.LayeredRuntime()
    static = result.layers.add(name="static").static_layer
    static.update({"re2.max_program_size.error_level": LARGEST})
    result.layers.add(name="admin").admin_layer.SetInParent()
    return result
