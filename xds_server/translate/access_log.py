"""Access logs: what a listener writes for each request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import config_source_pb2, substitution_format_string_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.access_loggers.open_telemetry.v3 import logs_service_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import struct_pb2
from opentelemetry.proto.common.v1 import common_pb2

from filters.log_fields import BY_NAME, CONDITION, DEFAULT_FIELDS, LogConditions
from filters.policy_server import grpc_service
from xds_server.gateway.model.listeners import Listener
from xds_server.gateway.model.telemetry import AccessLog, LogTarget, Telemetry
from xds_server.translate import names
from xds_server.translate.log_filters import cel_filter, compare, status_filter
from xds_server.translate.protobuf import duration, packed

STANDARD: Mapping[str, AccessLog] = {"stdout": AccessLog(to=LogTarget(stream="stdout"))}
"""The logs of a listener that asks for one in a gateway without `telemetry`."""
_STREAM_FIELDS = tuple(name for name in DEFAULT_FIELDS if BY_NAME[name].streams)
"""The fields of a log of connections that has only fields of HTTP."""
_UPSTREAM_OF_SESSION = "%DYNAMIC_METADATA(udp.proxy.session:cluster_name)%"
"""The upstream of a session of UDP, for which Envoy has no other operator."""
_NOTHING: Mapping[str, str] = MappingProxyType({})
_FLUSH = timedelta(seconds=1)
"""The time for which Envoy collects entries before it sends them by OTLP."""
_RETRIES = 30
"""Attempts to send a batch by OTLP, with pauses of up to a second."""
_MAX_DURATION = 2**31 - 1
"""Milliseconds: the largest that a filter of Envoy compares with."""


def logs_of(listener: Listener, telemetry: Telemetry) -> Mapping[str, AccessLog]:
    """Return the logs of a listener by name."""
    logs = telemetry.access_logs or {}
    if listener.access_log is False:
        return {}
    return logs or (STANDARD if listener.access_log else {})


def access_logs(
    listener: Listener, telemetry: Telemetry, *, by_route: bool
) -> Iterator[accesslog_pb2.AccessLog]:
    """Yield the logs of a listener. `by_route` is true if some route has conditions of its own."""
    for _, log in sorted(logs_of(listener, telemetry).items()):
        result = _log(log)
        filters = [*([cel_filter(CONDITION)] if by_route else ()), *_when(log.when)]
        if len(filters) == 1:
            result.filter.CopyFrom(filters[0])
        elif filters:
            result.filter.and_filter.filters.extend(filters)
        yield result


def connection_logs(
    listener: Listener, telemetry: Telemetry, stream_route: str
) -> Iterator[accesslog_pb2.AccessLog]:
    """Yield the logs of the connections of a stream route: with the fields that exist without HTTP, and the conditions.

    A connection has no status. So a log that is only for some statuses has none of them.
    """
    for _, log in sorted(logs_of(listener, telemetry).items()):
        when = log.when
        if when is not None and when.statuses:
            if when.slower_than is None and when.sample is None:
                continue
            when = replace(when, statuses=())
        fields = tuple(name for name in log.names if BY_NAME[name].streams) or _STREAM_FIELDS
        instead = {"route": stream_route}
        if listener.protocol == "udp":
            instead["upstream"] = _UPSTREAM_OF_SESSION
        result = _log(replace(log, fields=fields, query=(), when=when), instead)
        for one in _when(when):
            result.filter.CopyFrom(one)
        yield result


def _log(log: AccessLog, instead: Mapping[str, str] = _NOTHING) -> accesslog_pb2.AccessLog:
    """Return a log. `instead` has the operators of fields that differ from those of requests."""
    if log.to.otlp is not None:
        config = packed(_otlp(log, log.to.otlp, instead))
        return accesslog_pb2.AccessLog(name="envoy.access_loggers.open_telemetry", typed_config=config)
    if log.to.file is not None:
        config = packed(file_pb2.FileAccessLog(path=log.to.file, log_format=_format(log, instead)))
        return accesslog_pb2.AccessLog(name="envoy.access_loggers.file", typed_config=config)
    kind = stream_pb2.StdoutAccessLog if log.to.stream == "stdout" else stream_pb2.StderrAccessLog
    name = f"envoy.access_loggers.{log.to.stream}"
    return accesslog_pb2.AccessLog(name=name, typed_config=packed(kind(log_format=_format(log, instead))))


def _fields(log: AccessLog, instead: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in log.names:
        yield name, instead.get(name) or BY_NAME[name].operator
    yield from log.extra.items()


def _format(
    log: AccessLog, instead: Mapping[str, str]
) -> substitution_format_string_pb2.SubstitutionFormatString:
    result = substitution_format_string_pb2.SubstitutionFormatString()
    if log.format == "text":
        text = (
            log.text if log.text is not None else " ".join(operator for _, operator in _fields(log, instead))
        )
        result.text_format_source.inline_string = f"{text}\n"
        return result
    struct = struct_pb2.Struct()
    struct.update(dict(_fields(log, instead)))
    if log.query:
        struct.update({"query": {name: f"%QUERY_PARAM({name}):256%" for name in log.query}})
    result.json_format.CopyFrom(struct)
    result.omit_empty_values = True
    return result


def _otlp(
    log: AccessLog, upstream: str, instead: Mapping[str, str]
) -> logs_service_pb2.OpenTelemetryAccessLogConfig:
    """Return a log that Envoy sends by OTLP. Envoy tries again if the receiver is away for a moment."""
    service = grpc_service(timedelta(seconds=5), cluster=names.cluster(upstream))
    service.retry_policy.retry_on = "unavailable,reset,connect-failure"
    service.retry_policy.num_retries.value = _RETRIES
    service.retry_policy.retry_back_off.base_interval.CopyFrom(duration(timedelta(milliseconds=100)))
    service.retry_policy.retry_back_off.max_interval.CopyFrom(duration(timedelta(seconds=1)))
    result = logs_service_pb2.OpenTelemetryAccessLogConfig(
        common_config=als_pb2.CommonGrpcAccessLogConfig(
            log_name="access_log",
            grpc_service=service,
            transport_api_version=config_source_pb2.V3,
            buffer_flush_interval=duration(_FLUSH),
        ),
        disable_builtin_labels=True,
    )
    result.resource_attributes.values.append(_attribute("service.name", "gateway"))
    request = " ".join(BY_NAME[name].operator for name in ("method", "path", "status"))
    result.body.string_value = instead.get("route", request)
    for name, operator in (
        *_fields(log, instead),
        *((f"query.{name}", f"%QUERY_PARAM({name}):256%") for name in log.query),
    ):
        result.attributes.values.append(_attribute(name, operator))
    return result


def _attribute(key: str, value: str) -> common_pb2.KeyValue:
    return common_pb2.KeyValue(key=key, value=common_pb2.AnyValue(string_value=value))


def _when(conditions: LogConditions | None) -> Iterator[accesslog_pb2.AccessLogFilter]:
    """Yield the filter of a log, if it has conditions: one of them is enough."""
    if conditions is None:
        return
    found = [status_filter(one) for one in conditions.statuses]
    if conditions.slower_than is not None:
        milliseconds = min(_MAX_DURATION, conditions.slower_than // timedelta(milliseconds=1))
        found.append(accesslog_pb2.AccessLogFilter())
        compare(found[-1].duration_filter.comparison, accesslog_pb2.ComparisonFilter.GE, milliseconds + 1)
    if conditions.sample is not None:
        found.append(accesslog_pb2.AccessLogFilter())
        sampled = found[-1].runtime_filter
        sampled.runtime_key, sampled.use_independent_randomness = "access_log.sample", True
        sampled.percent_sampled.numerator = round(conditions.sample * 10_000)
        sampled.percent_sampled.denominator = percent_pb2.FractionalPercent.MILLION
    if len(found) == 1:
        yield found[0]
        return
    result = accesslog_pb2.AccessLogFilter()
    result.or_filter.filters.extend(found)
    yield result
