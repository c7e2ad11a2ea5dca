"""The headers by which responses of an API announce its end."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import format_datetime

from xds_server.gateway.model.catalog import Api, moment
from xds_server.gateway.model.portal import Portal

Headers = tuple[tuple[str, str], ...]


def headers(catalog: Mapping[str, Api], portal: Portal) -> Mapping[str, Headers]:
    """Return the headers of all responses of the APIs that have some, by the name of the API."""
    found = {name: _headers(name, api, portal) for name, api in catalog.items()}
    return {name: some for name, some in found.items() if some}


def _headers(name: str, api: Api, portal: Portal) -> Headers:
    """Return Deprecation (RFC 9745), Sunset (RFC 8594), and Link (RFC 8288) with pages about them.

    The page of the successor is a link of RFC 5829.
    """
    found = []
    if api.deprecated is not None:
        found.append(("deprecation", f"@{int(moment(api.deprecated).timestamp())}"))
    if api.sunset is not None:
        found.append(("sunset", format_datetime(moment(api.sunset), usegmt=True)))
    links = {
        "deprecation": api.links.deprecation or (portal.api_url(name) if api.deprecated else None),
        "sunset": api.links.sunset,
        "successor-version": portal.api_url(api.successor) if api.successor else None,
    }
    link = ", ".join(f'<{url}>; rel="{kind}"; type="text/html"' for kind, url in links.items() if url)
    return (*found, *((("link", link),) if link else ()))
