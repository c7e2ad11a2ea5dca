"""Credentials that two consumers share, so they would not identify one consumer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from filters.language import Mistake
from filters.model import claims
from filters.model.identity import Consumer, last_second


def conflicts(consumers: Mapping[str, Consumer]) -> Iterator[Mistake]:
    """Yield a mistake for each credential that two consumers share, and for each moment that does not exist."""
    owners: dict[object, str] = {}
    for name, consumer in consumers.items():
        for at, key in enumerate(consumer.api_keys):
            if owners.setdefault(key.sha256, name) != name:
                yield _shared(owners[key.sha256], (name, "api_keys", at))
            if key.not_after is not None and not _exists(key.not_after):
                remedy = "write a date such as 2027-01-31"
                where = (name, "api_keys", at, "not_after")
                yield Mistake("there is no such moment", remedy, path=where, value=key.not_after)
        # This comes first, because most of 100,000 consumers have only keys.
        if consumer.basic_auth or consumer.jwt or consumer.certificates:
            for path, credential in _credentials(consumer):
                if owners.setdefault(credential, name) != name:
                    yield _shared(owners[credential], (name, *path))


def _shared(first: str, path: tuple[str | int, ...]) -> Mistake:
    message = f"the consumer '{first}' has the same, so it would not identify one of them"
    return Mistake(message, "give each consumer its own", path=path)


def _exists(not_after: str) -> bool:
    try:
        last_second(not_after)
    except ValueError:
        return False
    return True


def _credentials(consumer: Consumer) -> Iterator[tuple[tuple[str | int, ...], object]]:
    for password in consumer.passwords:
        yield ("basic_auth",), ("user", password.username)
    for token in consumer.tokens:
        yield ("jwt",), ("jwt", token.provider, claims.paths(token.claim), token.value)
    for at, san in enumerate(consumer.certificates):
        yield ("certificates", at), ("san", san)
