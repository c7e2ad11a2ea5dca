"""Metrics by route and consumer: Envoy's stats access logger, with a fixed number of series for each.

A successful request costs one histogram, and one counter if consumers are counted. Errors have counters of their own, so
that the number of successes is the difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.extensions.access_loggers.stats.v3 import stats_pb2

from filters.log_fields import BY_NAME
from filters.model.identity import SERIES
from xds_server.gateway.model.telemetry import Metrics
from xds_server.translate.log_filters import status_filter
from xds_server.translate.protobuf import packed, uint64

LOGGER = "envoy.access_loggers.stats"
PREFIX = "gateway"
CLASSES: Mapping[str, str] = {"4xx": "4xx", "5xx": "5xx", "0": "none"}
"""The statuses that are errors, and the label `status` of their series. 0 is a client that left before its response."""
_ROUTE, _CONSUMER = BY_NAME["route"].operator, SERIES


def metrics(settings: Metrics) -> Iterator[accesslog_pb2.AccessLog]:
    """Yield the loggers of a listener."""
    histogram = stats_pb2.Config.Histogram(
        stat=_stat("request_duration_milliseconds", route=_ROUTE),
        unit=stats_pb2.Config.Histogram.Milliseconds,
        value_format="%DURATION%",
    )
    counters = [_counter("consumer_requests", consumer=_CONSUMER)] if settings.consumers else []
    yield _logger(stats_pb2.Config(stat_prefix=PREFIX, histograms=[histogram], counters=counters))
    for status, label in CLASSES.items():
        counters = [_counter("errors", route=_ROUTE, status=label)]
        if status != "0":
            counters.append(_counter("rejections", reason=BY_NAME["reason"].operator))
        if settings.consumers:
            counters.append(_counter("consumer_errors", consumer=_CONSUMER, status=label))
        log = _logger(stats_pb2.Config(stat_prefix=PREFIX, counters=counters))
        log.filter.CopyFrom(status_filter(status))
        yield log


def _logger(config: stats_pb2.Config) -> accesslog_pb2.AccessLog:
    return accesslog_pb2.AccessLog(name=LOGGER, typed_config=packed(config))


def _stat(name: str, **tags: str) -> stats_pb2.Config.Stat:
    found = [stats_pb2.Config.Tag(name=tag, value_format=value) for tag, value in tags.items()]
    return stats_pb2.Config.Stat(name=name, tags=found)


def _counter(name: str, **tags: str) -> stats_pb2.Config.Counter:
    return stats_pb2.Config.Counter(stat=_stat(name, **tags), value_fixed=uint64(1))
