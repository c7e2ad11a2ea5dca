"""The databases of `geoip`: whether a file is one in the MaxMind DB format, with the field that Envoy reads.

Format: https://maxmind.github.io/MaxMind-DB/.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

import maxminddb

from filters.language import DataSource, Mistake, Problem
from filters.model.geoip import Geoip
from xds_server.gateway.model.gateway import Sections

_SEARCHED = 10_000
"""The number of networks among which one must have the field. In real databases nearly all have it."""
_AGAIN = "download it again"
_DAMAGED = (
    *(maxminddb.InvalidDatabaseError, ValueError, LookupError, TypeError, ArithmeticError),
    *(struct.error, RecursionError, MemoryError),
)
"""What the reader raises for damaged files: only the first of them says so."""


def check(sections: Sections, contents: Mapping[DataSource, bytes]) -> Iterator[Problem]:
    """Yield a problem for each database that Envoy cannot open, or in which it would find nothing."""
    for key, source in sections.geoip.items():
        if (content := contents.get(source)) is None:
            continue
        field, has = _FIELDS[key]
        try:
            _look(content, field, has)
        except Mistake as mistake:
            yield Problem(
                path=("geoip", key), message=mistake.message, remedy=mistake.remedy, value=source.file
            )


def without_databases(contents: dict[DataSource, bytes], geoip: Geoip) -> dict[DataSource, bytes]:
    """Return the contents without those of databases, which may have 100 MB and are needed no more."""
    return {source: content for source, content in contents.items() if source not in geoip.values()}


def _look(content: bytes, field: str, has: Callable[[object], bool]) -> None:
    """Raise Mistake unless the content is a database of which a network has the field."""
    try:
        with maxminddb.open_database(io.BytesIO(content), maxminddb.MODE_FD) as database:
            found = any(has(record) for _, record in islice(database, _SEARCHED))
            kind = database.metadata().database_type
    except _DAMAGED as error:
        message = str(error) or type(error).__name__
        raise Mistake(f"not a database in the MaxMind DB format: {message}", _AGAIN) from None
    if not found:
        message = f"no address has a '{field}' in this database of the type '{kind}'"
        raise Mistake(message, _OTHER[field])


def _country(record: object) -> bool:
    country = record.get("country") if isinstance(record, dict) else None
    return isinstance(country, dict) and isinstance(country.get("iso_code"), str)


def _asn(record: object) -> bool:
    return isinstance(record, dict) and isinstance(record.get("autonomous_system_number"), int)


_FIELDS: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "countries": ("country.iso_code", _country),
    "asns": ("autonomous_system_number", _asn),
}
_OTHER = {
    "country.iso_code": "use a database of countries or cities, such as GeoLite2-Country",
    "autonomous_system_number": "use a database of autonomous systems, such as GeoLite2-ASN",
}
