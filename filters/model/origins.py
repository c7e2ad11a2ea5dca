"""Origins as browsers send them (HTML standard, serialization of an origin)."""

from __future__ import annotations

import re

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#@\s*]+)")
_SUBDOMAINS = re.compile(r"(https?)://\*\.([^/?#@\s*]+)")
_HOST = re.compile(r"([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def fault(origin: str) -> tuple[str, str] | None:
    """The reason why browsers never send this origin, and the remedy, or None.

    The source is the HTML standard, serialization of an origin.
    """
    match = _SUBDOMAINS.fullmatch(origin.lower()) or _ORIGIN.fullmatch(origin.lower())
    if match is None:
        return "not an origin", "write scheme and host, such as https://shop.example.com, without a path"
    if origin != origin.lower():
        return "browsers send origins in lower case", f"write {origin.lower()}"
    scheme, host = match.groups()
    if scheme not in _DEFAULT_PORTS:
        return None
    if not host.isascii():
        try:
            written = host.encode("idna").decode()
        except UnicodeError:
            written = "the host in ASCII"
        return "browsers send hosts in ASCII (punycode)", f"write {origin.replace(host, written)}"
    if host.endswith(_DEFAULT_PORTS[scheme]) and not host.endswith("]"):
        port = _DEFAULT_PORTS[scheme]
        return f"browsers leave the default port {port} out", f"write {origin.removesuffix(port)}"
    found = _HOST.fullmatch(host)
    if found is None or int((found[2] or ":1")[1:]) > 65535:
        return "not an origin", "write scheme and host, such as https://shop.example.com, without a path"
    return None
