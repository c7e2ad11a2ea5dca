"""Names, texts and secrets of the marketplace: what is valid, and how they are made."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
import uuid
from collections.abc import Collection

from xds_server.marketplace.errors import Invalid

_SLUG = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_EMAIL = re.compile(r"[^@\s\x00-\x1f<>\"]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
KEY_PREFIX = "xgk_"
"""Begins every key, so that scanners of repositories recognize one."""
TOKEN_PREFIX = "xgt_"  # noqa: S105 - the beginning of tokens, which is public
"""Begins every token of the admin API."""
END = 253_402_300_800
"""The first second after the year 9999, which no text of RFC 3339 can say."""
LONGEST_TEXT = 100_000
"""Characters of a description or of terms."""


def new_id() -> str:
    """Return a UUID of version 7 (RFC 9562, section 5.7), which begins with the time in milliseconds."""
    value = int(time.time() * 1000) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(3 << 62) | 2 << 62
    return str(uuid.UUID(int=value))


def new_secret(prefix: str = "") -> str:
    """Return 256 random bits as text that fits into a header and a URL."""
    return prefix + secrets.token_urlsafe(32)


def digest(secret: str) -> bytes:
    """Return the SHA-256 of a secret. It needs no salt, because the secret has 256 random bits."""
    return hashlib.sha256(secret.encode()).digest()


def slug(value: str, field: str = "slug") -> str:
    """Return a valid name for URLs. Raises Invalid."""
    if not _SLUG.fullmatch(value):
        raise Invalid(
            "write 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends", field
        )
    return value


def slug_of(text: str) -> str:
    """Return a name for URLs that is made from a text; empty if the text has no letters or digits of ASCII."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-")


def any_slug(prefix: str) -> str:
    """Return a name for URLs of something whose own name has no letters of ASCII."""
    return f"{prefix}-{secrets.token_hex(4)}"


def free_slug(wanted: str, taken: Collection[str]) -> str:
    """Return a name for URLs, with a number at its end if it is taken."""
    numbers = (f"-{number}" for number in range(2, len(taken) + 3))
    some = (wanted, *(f"{wanted[: 63 - len(end)]}{end}" for end in numbers))
    return next(one for one in some if one not in taken)


def email(value: str, field: str = "email") -> str:
    """Return an address of mail in lower case. Raises Invalid."""
    if len(value) > 320 or not _EMAIL.fullmatch(value):
        raise Invalid("write an address such as ada@example.com", field)
    return value.lower()


def line(value: str, field: str, longest: int = 255) -> str:
    """Return a text of one line without white space at its ends. Raises Invalid."""
    text = " ".join(value.split())
    if not text:
        raise Invalid("write at least one character", field)
    return _bounded(text, field, longest)


def usable_line(value: str, longest: int = 255) -> str:
    """Return what can be used of a text as one line, which may be empty."""
    return " ".join(_CONTROL.sub("", value).split())[:longest].strip()


def text(value: str, field: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text of any number of lines, which may be empty. Raises Invalid."""
    return _bounded(value.replace("\r\n", "\n"), field, longest)


def future(value: int, now: int, field: str, remedy: str = "write a moment in the future") -> int:
    """Return a moment (Unix seconds) that is later than now, and not after the year 9999. Raises Invalid."""
    if value <= now:
        raise Invalid(remedy, field)
    if value >= END:
        raise Invalid("write a moment before the end of the year 9999", field)
    return value


def _bounded(value: str, field: str, longest: int) -> str:
    if len(value) > longest:
        raise Invalid(f"write at most {longest} characters; these are {len(value)}", field)
    if _CONTROL.search(value):
        raise Invalid("remove control characters", field)
    return value
