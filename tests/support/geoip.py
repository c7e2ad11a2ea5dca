"""Databases in the MaxMind DB format with addresses for documentation (RFC 5737, RFC 3849)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmdb_writer import MMDBWriter
from netaddr import IPSet


def write_countries(path: Path, countries: Mapping[str, str]) -> None:
    """Replace a database of countries by network, as updates do it: by a rename."""
    _write(
        path, "GeoLite2-Country", {net: {"country": {"iso_code": code}} for net, code in countries.items()}
    )


def write_asns(path: Path, asns: Mapping[str, int]) -> None:
    """Replace a database of autonomous systems by network."""
    _write(path, "GeoLite2-ASN", {net: {"autonomous_system_number": number} for net, number in asns.items()})


def _write(path: Path, kind: str, records: Mapping[str, object]) -> None:
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type=kind, int_type="u32")
    for network, record in records.items():
        writer.insert_network(IPSet([network]), record)
    new = path.with_suffix(".new")
    writer.to_db_file(str(new))
    new.rename(path)
