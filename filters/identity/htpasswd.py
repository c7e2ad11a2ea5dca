"""htpasswd files: names and hashes, those that Envoy verifies (SHA-1) and those that take too long for it (bcrypt)."""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from filters.language import DataSource, Mistake

SLOW = "bcrypt:"
"""What stands before a hash that the policy server verifies; Envoy gets this and not the hash."""
BCRYPT = re.compile(r"\$2[aby]\$(?P<cost>\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
"""The salt's last letter has two bits of it: only these four have no others."""
LEAST_COST, MOST_COST = 4, 14
"""The least that bcrypt knows, and what takes about a second."""


def list_name(source: DataSource) -> str:
    """The name of a list of users: where it comes from, not what it holds, so that a route does not change with it."""
    return re.sub(r"[^A-Za-z0-9./_-]", "-", f"file/{source.file}" if source.file else f"env/{source.env}")


def read(content: bytes) -> Iterator[tuple[str, str]]:
    """Names and hashes of a file's lines. Raises Mistake for a line that nobody can verify."""
    if content.startswith(codecs.BOM_UTF8):
        raise Mistake(
            "line 1: a byte order mark stands before the first name",
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
    """Hashes by name; of several lines for one name the last counts. Kept: every route asks. Raises Mistake."""
    return dict(read(content))


@lru_cache(maxsize=64)
def _any_slow(content: bytes) -> bool:
    return any(one.startswith(SLOW) for one in users(content).values())


def has_slow(source: DataSource | None, contents: Mapping[DataSource, bytes]) -> bool:
    """Whether a policy server has to verify passwords of a list."""
    return source is not None and _any_slow(contents[source])
