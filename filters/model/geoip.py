"""geoip: the databases in which Envoy looks up the country and the autonomous system of each client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from filters.language import DataSource, Mistake, Shorthand, option
from filters.model.identity import variants

COUNTRY_HEADER, ASN_HEADER = "x-geo-country", "x-geo-asn"
"""The request headers in which Envoy's filter writes what it finds, for policies, access logs and upstreams."""
GEO_HEADERS = tuple(sorted((*variants(COUNTRY_HEADER), *variants(ASN_HEADER))))
"""These headers, also with underscores, because some servers read those as hyphens."""
LARGEST_ASN = 2**32 - 1
"""RFC 6793 section 3."""
_CODES = """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA
CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA
GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP
KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS
MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS
RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW
TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW
"""
COUNTRIES = frozenset(_CODES.split())
"""The codes of ISO 3166-1 alpha-2, and XK, which databases have for Kosovo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoDatabase(DataSource):
    """A database in the MaxMind DB format, at a path that is the same here and on the machines of the Envoys."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand(
        (str,), "a path", {"type": "string", "pattern": r"^/.+\.mmdb$|\$\{"}
    )
    missing: ClassVar[str] = "put the database there, on this machine and on those of the Envoys"

    @classmethod
    def short(cls, value: str) -> GeoDatabase:
        """The database at this path. Raises Mistake."""
        result = cls(file=value)
        for mistake in result.check():
            raise mistake
        return result

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake unless an absolute path is named, because Envoy opens the file itself."""
        remedy = "write a path such as /var/lib/GeoIP/GeoLite2-Country.mmdb"
        if self.file is None or self.env is not None or self.inline is not None:
            yield Mistake("Envoy opens the database itself, so it must be a file", remedy)
        elif not self.file.startswith("/") or not self.file.endswith(".mmdb"):
            yield Mistake("not an absolute path of an .mmdb file", remedy, value=self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Geoip(Mapping[str, Any]):
    """Databases that say where addresses are. As a mapping it has the keys that a user wrote.

    Policies, access logs and upstreams get the country as `x-geo-country` and the autonomous system as `x-geo-asn`.
    """

    countries: GeoDatabase | None = option(
        "A database with `country.iso_code`: GeoLite2-Country, GeoIP2-City, DB-IP Country or one like them.",
        default=None,
        example="/var/lib/GeoIP/GeoLite2-Country.mmdb",
    )
    asns: GeoDatabase | None = option(
        "A database with `autonomous_system_number`: GeoLite2-ASN, DB-IP ASN or one like them.",
        default=None,
        example="/var/lib/GeoIP/GeoLite2-ASN.mmdb",
    )

    def __getitem__(self, key: str) -> Any:
        if key not in KEYS or getattr(self, key) is None:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return (key for key in KEYS if getattr(self, key) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


KEYS = tuple(one.name for one in fields(Geoip))
NO_GEOIP = Geoip()
