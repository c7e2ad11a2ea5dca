"""The usage log: one short entry for each request, which Envoy sends to the usage server. Its fields are declared here.

Envoy sends it as OTLP logs with unary calls (decision 080), so that a call that failed is sent again.
"""

from __future__ import annotations

from datetime import timedelta

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import config_source_pb2
from envoy.extensions.access_loggers.open_telemetry.v3 import logs_service_pb2

from filters.log_fields import COUNTED
from filters.model.identity import NAMESPACE
from filters.policy_server import internal_cluster
from xds_server.translate.log_filters import cel_filter
from xds_server.translate.protobuf import duration, packed, uint32
from xds_server.translate.usage_entry import BATCH, PATIENCE, SEPARATOR, SERVICE, VERSION

FIELDS = (
    VERSION,
    "%UNIQUE_ID%",
    "%START_TIME(%s)%",
    "%RESPONSE_CODE%",
    "%BYTES_RECEIVED%",
    "%BYTES_SENT%",
    "%DURATION%",
    "%ROUTE_NAME%",
    f"%DYNAMIC_METADATA({NAMESPACE}:consumer)%",
    f"%DYNAMIC_METADATA({NAMESPACE}:plan)%",
)
"""Envoy's command operators, in the order of an entry. No client can choose a value that is a text."""


def access_log(flush: timedelta, *, by_route: bool = False) -> accesslog_pb2.AccessLog:
    """Return the log. Envoy sends a batch when it is full, and after the time `flush`.

    `by_route` is true if the requests of some route are not counted.
    """
    config = logs_service_pb2.OpenTelemetryAccessLogConfig(
        disable_builtin_labels=True, stat_prefix=f"{SERVICE}."
    )
    config.body.string_value = SEPARATOR.join(FIELDS)
    common = config.common_config
    common.log_name = SERVICE
    common.transport_api_version = config_source_pb2.V3
    common.buffer_flush_interval.CopyFrom(duration(flush))
    common.buffer_size_bytes.CopyFrom(uint32(BATCH))
    common.grpc_service.envoy_grpc.cluster_name = internal_cluster(SERVICE)
    common.grpc_service.timeout.CopyFrom(duration(PATIENCE))
    retries = common.grpc_service.retry_policy
    retries.retry_on = (
        "cancelled,connect-failure,deadline-exceeded,internal,reset,resource-exhausted,unavailable"
    )
    retries.num_retries.value = 1_000_000
    retries.retry_back_off.base_interval.CopyFrom(duration(timedelta(milliseconds=100)))
    retries.retry_back_off.max_interval.CopyFrom(duration(timedelta(seconds=1)))
    log = accesslog_pb2.AccessLog(name="envoy.access_loggers.open_telemetry", typed_config=packed(config))
    if by_route:
        log.filter.CopyFrom(cel_filter(COUNTED))
    return log
