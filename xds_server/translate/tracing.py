"""Traces: Envoy's OpenTelemetry tracer in every listener, with spans named by route."""

from __future__ import annotations

from datetime import timedelta

from envoy.config.core.v3 import extension_pb2, http_service_pb2, http_uri_pb2
from envoy.config.trace.v3 import http_tracer_pb2, opentelemetry_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.tracers.opentelemetry.resource_detectors.v3 import static_config_resource_detector_pb2
from envoy.type.tracing.v3 import custom_tag_pb2
from envoy.type.v3 import percent_pb2

from filters.log_fields import BY_NAME
from filters.policy_server import grpc_service
from xds_server.gateway.model.telemetry import Tracing
from xds_server.translate import names
from xds_server.translate.protobuf import boolean, duration, packed, uint32

CONTEXT_HEADERS = ("traceparent", "tracestate")
"""The headers of W3C Trace Context."""
_TAGS = ("consumer", "reason")
"""Fields of the access log that are attributes of each span too. Envoy computes them also for requests that are not traced.

The request id is `guid:x-request-id`, which Envoy itself adds.
"""
_URL = f"%REQ(:SCHEME)%://{BY_NAME['host'].operator}{BY_NAME['path'].operator}"
"""The URL of a span without its query and without a password. Envoy itself would write both."""
_EXPORT_TIMEOUT = timedelta(seconds=10)


def tracing(settings: Tracing) -> hcm_pb2.HttpConnectionManager.Tracing:
    """Return the tracing of a listener."""
    tracer = opentelemetry_pb2.OpenTelemetryConfig(service_name=settings.service_name)
    if settings.protocol == "grpc":
        service = grpc_service(_EXPORT_TIMEOUT, cluster=names.cluster(settings.upstream))
        tracer.grpc_service.CopyFrom(service)
    else:
        tracer.http_service.CopyFrom(_http_service(settings))
    if settings.resource:
        detector = static_config_resource_detector_pb2.StaticConfigResourceDetectorConfig(
            attributes=settings.resource
        )
        tracer.resource_detectors.append(
            extension_pb2.TypedExtensionConfig(
                name="envoy.tracers.opentelemetry.resource_detectors.static_config",
                typed_config=packed(detector),
            )
        )
    result = hcm_pb2.HttpConnectionManager.Tracing(
        random_sampling=percent_pb2.Percent(value=settings.sample),
        operation="%ROUTE_NAME%",
        upstream_operation="%UPSTREAM_CLUSTER%",
        spawn_upstream_span=boolean(True),
        max_path_tag_length=uint32(0),  # for Envoys that do not know our URL: theirs would have the query
    )
    result.provider.CopyFrom(
        http_tracer_pb2.Tracing.Http(name="envoy.tracers.opentelemetry", typed_config=packed(tracer))
    )
    tags = (
        {"http.url": _URL}
        | {f"gateway.{name}": BY_NAME[name].operator for name in _TAGS}
        | dict(settings.attributes)
    )
    for name, value in tags.items():
        result.custom_tags.append(custom_tag_pb2.CustomTag(tag=name, value=value))
    return result


def _http_service(settings: Tracing) -> http_service_pb2.HttpService:
    uri = http_uri_pb2.HttpUri(
        uri=f"http://{settings.upstream}{settings.path}",
        cluster=names.cluster(settings.upstream),
        timeout=duration(_EXPORT_TIMEOUT),
    )
    return http_service_pb2.HttpService(http_uri=uri)
