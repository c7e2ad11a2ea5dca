"""htpasswd files: names, and hashes that Envoy verifies (SHA-1) or that take too long for Envoy (bcrypt)."""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from filters.language import DataSource, Mistake

SLOW = "bcrypt:"
"""The prefix of a hash that the policy server verifies. Envoy gets only this prefix and not the hash."""
BCRYPT = re.compile(r"\$2[aby]\$(?P<cost>\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
"""The last letter of the salt has two bits of it. Only these four letters have no further bits."""
LEAST_COST, MOST_COST = 4, 14
"""The least cost of bcrypt, and a cost that takes about a second."""


def list_name(source: DataSource) -> str:
    """The name of a list of users. It depends on the source and not on the content, so routes do not change with it."""
    return re.sub(r"[^A-Za-z0-9./_-]", "-", f"file/{source.file}" if source.file else f"env/{source.env}")


def read(content: bytes) -> Iterator[tuple[str, str]]:
    """Names and hashes of a file's lines. Raises Mistake for a line whose hash cannot be verified."""
    if content.startswith(codecs.BOM_UTF8):
        raise Mistake(
            "line 1: there is a byte order mark before the first name",
            "save the file as UTF-8 without one",
            path=("htpasswd",),
        )
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        name, _, entry = line.strip().partition(":")
        if name and not name.startswith("#"):
            yield name, _hash(number, entry)


def _hash(number: int, entry: str) -> str:
    digest = _sha1(entry)
    if digest is not None:
        return f"sha1:{digest.hex()}"
    bcrypt = BCRYPT.fullmatch(entry)
    if bcrypt is not None and LEAST_COST <= int(bcrypt["cost"]) <= MOST_COST:
        return SLOW + entry
    if bcrypt is not None and int(bcrypt["cost"]) > MOST_COST:
        message, remedy = (
            "each login would take seconds",
            f"use a cost of at most {MOST_COST}: htpasswd -B -C 10",
        )
    elif re.match(r"\$(apr1|5|6)\$", entry):
        message, remedy = "MD5 and SHA crypt are not supported", "hash the password with htpasswd -B"
    else:
        message, remedy = "this is not NAME:HASH", "write it with htpasswd -B, or -s for generated passwords"
    raise Mistake(f"line {number}: {message}", remedy, path=("htpasswd",))


def _sha1(entry: str) -> bytes | None:
    try:
        digest = base64.b64decode(entry[5:], validate=True) if entry.startswith("{SHA}") else b""
    except ValueError:
        return None
    return digest if len(digest) == 20 else None


@lru_cache(maxsize=64)
def users(content: bytes) -> Mapping[str, str]:
    """Hashes by name. The last of several lines for one name counts. Raises Mistake.

    The result is cached, because every route needs it.
    """
    return dict(read(content))


@lru_cache(maxsize=64)
def _any_slow(content: bytes) -> bool:
    return any(one.startswith(SLOW) for one in users(content).values())


def has_slow(source: DataSource | None, contents: Mapping[DataSource, bytes]) -> bool:
    """True if a policy server must verify passwords of a list."""
    return source is not None and _any_slow(contents[source])
