"""Envoy's filter that learns how many requests an upstream can take at the same time, one for each such upstream.

Envoy has this filter in listeners only, and its settings are those of a chain. So every chain has a filter for each
upstream with `adaptive_concurrency`, disabled, and routes to the upstream enable it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from envoy.config.route.v3 import route_components_pb2 as pb
from envoy.extensions.filters.http.adaptive_concurrency.v3 import adaptive_concurrency_pb2
from google.protobuf import any_pb2

from filters.policy import HttpFilter
from xds_server.gateway.model.resilience import AdaptiveConcurrency
from xds_server.gateway.model.upstreams import Upstream
from xds_server.translate import names
from xds_server.translate.protobuf import fill, packed

PREFIX = "xds.adaptive_concurrency/"


def adaptive(upstreams: Mapping[str, Upstream]) -> frozenset[str]:
    """Return the upstreams that have a learned limit."""
    return frozenset(name for name, one in upstreams.items() if one.adaptive_concurrency is not None)


def with_limits(filters: tuple[HttpFilter, ...], upstreams: Mapping[str, Upstream]) -> tuple[HttpFilter, ...]:
    """Return the chain with the filters behind all others, so that only requests that reach the upstream count.

    Their settings come by ECDS, so that a changed setting does not change the listener.
    """
    own = [
        HttpFilter(name=f"{PREFIX}{name}", config=_config(one.adaptive_concurrency), dynamic=True)
        for name, one in sorted(upstreams.items())
        if one.adaptive_concurrency is not None
    ]
    return (*filters, *own) if own else filters


def _config(settings: AdaptiveConcurrency) -> adaptive_concurrency_pb2.AdaptiveConcurrency:
    config = adaptive_concurrency_pb2.AdaptiveConcurrency()
    gradient = config.gradient_controller_config
    gradient.sample_aggregate_percentile.value = settings.percentile
    limit, latency = gradient.concurrency_limit_params, gradient.min_rtt_calc_params
    limit.max_concurrency_limit.value = settings.max
    fill(limit.concurrency_update_interval, settings.interval)
    latency.min_concurrency.value = settings.min
    latency.buffer.value = settings.tolerance
    if settings.latency is not None:
        fill(latency.fixed_value, settings.latency)  # without an interval, Envoy measures nothing
    elif settings.measure_every is not None:
        fill(latency.interval, settings.measure_every)
    return config


def enable(route: pb.Route, limited: Collection[str]) -> None:
    """Enable the filters of the upstreams of a translated route. `limited` are the upstreams that have one.

    Requests of a high priority are not counted and never rejected.
    """
    if not route.HasField("route") or route.route.priority:
        return
    by_cluster = {names.cluster(name): name for name in limited}
    if (name := by_cluster.get(route.route.cluster)) is not None:
        _enable(route.typed_per_filter_config, name)
    for weighted in route.route.weighted_clusters.clusters:
        if (name := by_cluster.get(weighted.name)) is not None:
            _enable(weighted.typed_per_filter_config, name)


def _enable(configs: Mapping[str, any_pb2.Any], upstream: str) -> None:
    configs[f"{PREFIX}{upstream}"].CopyFrom(packed(pb.FilterConfig(config=any_pb2.Any())))
