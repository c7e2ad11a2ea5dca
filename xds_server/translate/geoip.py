"""Envoy's filter that looks up the country and the autonomous system of each client."""

from __future__ import annotations

from envoy.extensions.filters.http.geoip.v3 import geoip_pb2
from envoy.extensions.geoip_providers.maxmind.v3 import maxmind_pb2

from filters.model.geoip import ASN_HEADER, COUNTRY_HEADER, Geoip
from filters.policy import HttpFilter
from xds_server.translate.protobuf import packed

FILTER = "envoy.filters.http.geoip"


def with_geoip(filters: tuple[HttpFilter, ...], geoip: Geoip) -> tuple[HttpFilter, ...]:
    """Return the chain with the filter before all others, so that access logs have the country of every request."""
    return (_http_filter(geoip), *filters) if geoip else filters


def _http_filter(geoip: Geoip) -> HttpFilter:
    """Return the filter. The address is that of the connection manager, which reads x-forwarded-for of trusted proxies."""
    provider = maxmind_pb2.MaxMindConfig()
    keys = provider.common_provider_config.geo_field_keys
    if geoip.countries is not None:
        provider.country_db_path, keys.country = str(geoip.countries.file), COUNTRY_HEADER
    if geoip.asns is not None:
        provider.asn_db_path, keys.asn = str(geoip.asns.file), ASN_HEADER
    config = geoip_pb2.Geoip()
    config.provider.name = "envoy.geoip_providers.maxmind"
    config.provider.typed_config.CopyFrom(packed(provider))
    return HttpFilter(name=FILTER, config=config, always=True)
