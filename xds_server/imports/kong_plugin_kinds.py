"""Plugins of Kong that are not imported, by what their loss means."""

from __future__ import annotations

CHANGING = frozenset(
    ("request-transformer-advanced", "response-transformer-advanced", "route-transformer-advanced", "aws-lambda", "azure-functions", "openwhisk",
     "forward-proxy", "grpc-gateway", "canary", "mocking", "redirect", "exit-transformer", "jq", "degraphql", "kafka-upstream", "kafka-log", "proxy-cache-advanced",
     "http-log", "upstream-timeout", "route-by-header", "standard-webhooks", "session", "websocket-size-limit")
)  # fmt: skip
"""Plugins that change requests, and reject none."""
PROTECTING = frozenset(
    ("bot-detection", "rate-limiting-advanced", "response-ratelimiting", "service-protection", "websocket-validator", "request-validator", "oas-validation",
     "json-threat-protection", "xml-threat-protection", "injection-protection", "graphql-rate-limiting-advanced")
)  # fmt: skip
"""Plugins that protect upstreams, and do not decide who may call."""
OBSERVING = {
    "prometheus": "xds serves metrics at /metrics/all; routes and consumers: telemetry.metrics",
    "http-log": "write telemetry.access_logs with grpc or file",
    "file-log": "write telemetry.access_logs with to: {file: …}",
    "tcp-log": "write telemetry.access_logs",
    "udp-log": "write telemetry.access_logs",
    "syslog": "write telemetry.access_logs",
    "loggly": "write telemetry.access_logs",
    "datadog": "write telemetry.metrics",
    "statsd": "write telemetry.metrics",
    "zipkin": "write telemetry.tracing",
    "opentelemetry": "write telemetry.tracing",
}
"""Plugins that observe, and what does the same here."""
