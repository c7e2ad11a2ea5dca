"""When the key of an authority changes, so that nobody meets a certificate whose issuer is not trusted yet. It does no IO.

An authority is announced in the bundle long before it signs, because an Envoy reads the bundle only when it starts: until
then, nearly every pod has been started again. Its predecessor stays in the bundle until it expires, because its certificates
are still in use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from xds_server.certificate_authority.authority import KeyPair, certificates_of, new_authority

LIFETIME = timedelta(days=3650)
"""The life of an authority."""
SUCCEEDED, RETIRED = 2 / 3, 5 / 6
"""The shares of its life after which an authority gets a successor, and after which the successor signs."""
_NAME = "xds-gateway"


@dataclass(frozen=True, kw_only=True)
class Authorities:
    """The authority that signs, the one that will, and the certificate of the one that did.

    `roots` are more certificates to trust, in PEM: those that signed an authority.
    """

    current: KeyPair
    upcoming: KeyPair | None = None
    former: bytes = b""
    roots: bytes = b""

    @property
    def bundle(self) -> bytes:
        """The certificates to trust, in PEM."""
        upcoming = self.upcoming.certificate if self.upcoming is not None else b""
        return b"".join(
            one.strip() + b"\n"
            for one in (self.current.certificate, upcoming, self.former, self.roots)
            if one
        )

    @classmethod
    def of(cls, data: Mapping[str, bytes]) -> Authorities:
        """Return the authorities that the data of a Secret has. Raises ValueError if they cannot be used."""
        if not data.get("tls.crt") or not data.get("tls.key"):
            raise ValueError("it has no tls.crt or no tls.key")
        current = KeyPair(data["tls.crt"], data["tls.key"])
        current.check()
        upcoming = None
        if data.get("next.crt") and data.get("next.key"):
            upcoming = KeyPair(data["next.crt"], data["next.key"])
            upcoming.check()
        return cls(current=current, upcoming=upcoming, former=data.get("former.crt", b""))

    def data(self) -> dict[str, bytes]:
        """Return them as the data of a Secret of the type kubernetes.io/tls."""
        found = {"tls.crt": self.current.certificate, "tls.key": self.current.private_key}
        if self.upcoming is not None:
            found |= {"next.crt": self.upcoming.certificate, "next.key": self.upcoming.private_key}
        return found | ({"former.crt": self.former} if self.former else {})


def given(data: Mapping[str, bytes]) -> Authorities:
    """Return an authority of somebody else: the data of a Secret with `tls.crt`, `tls.key` and perhaps `ca.crt`.

    Raises ValueError if it cannot be used.
    """
    if not data.get("tls.crt") or not data.get("tls.key"):
        raise ValueError("it has no tls.crt or no tls.key")
    current, roots = KeyPair(data["tls.crt"], data["tls.key"]), data.get("ca.crt", b"").strip()
    current.check()
    if roots:
        certificates_of(roots)
    known = roots in current.certificate
    return Authorities(current=current, roots=b"" if known else roots + b"\n")


def advanced(authorities: Authorities | None, now: datetime) -> Authorities:
    """Return the authorities as they should be now. None stands for those of a new installation."""
    if authorities is None or now >= authorities.current.ends:
        return Authorities(current=new_authority(_NAME, now, LIFETIME))
    upcoming = authorities.upcoming
    if upcoming is None and authorities.current.due(now, SUCCEEDED):
        authorities = replace(authorities, upcoming=new_authority(_NAME, now, LIFETIME))
    elif upcoming is not None and authorities.current.due(now, RETIRED):
        authorities = Authorities(current=upcoming, former=authorities.current.certificate)
    if authorities.former and now >= KeyPair(authorities.former, b"").ends:
        authorities = replace(authorities, former=b"")
    return authorities
