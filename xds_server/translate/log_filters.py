"""Filters of Envoy's access logs, which its error mappers use too."""

from __future__ import annotations

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2

from xds_server.translate.protobuf import packed


def cel_filter(expression: str) -> accesslog_pb2.AccessLogFilter:
    """Return the filter of a condition in CEL."""
    extension = accesslog_pb2.ExtensionFilter(
        name="envoy.access_loggers.extension_filters.cel",
        typed_config=packed(cel_pb2.ExpressionFilter(expression=expression)),
    )
    return accesslog_pb2.AccessLogFilter(extension_filter=extension)


def status_filter(text: str) -> accesslog_pb2.AccessLogFilter:
    """Return the filter of a status such as ``503``, or of a class such as ``5xx``."""
    result, comparison = accesslog_pb2.AccessLogFilter(), accesslog_pb2.ComparisonFilter
    if not text.endswith("xx"):
        compare(result.status_code_filter.comparison, comparison.EQ, int(text))
        return result
    first = int(text[0]) * 100
    for op, value in ((comparison.GE, first), (comparison.LE, first + 99)):
        compare(result.and_filter.filters.add().status_code_filter.comparison, op, value)
    return result


def compare(
    comparison: accesslog_pb2.ComparisonFilter, op: accesslog_pb2.ComparisonFilter.Op, value: int
) -> None:
    """Write a comparison of a filter in place."""
    comparison.op = op
    comparison.value.default_value, comparison.value.runtime_key = value, "access_log"
