"""URLs of databases. They are checked without SQLAlchemy, which is large, so that `xds run` can check its flags."""

from __future__ import annotations

import re

from xds_server.errors import WrongUsage

_SQLITE = re.compile(r"sqlite:///(?!:memory:).+")
_POSTGRESQL = re.compile(r"postgres(?:ql(?:\+psycopg)?)?://")


def checked(url: str, what: str = "usage store") -> str:
    """Return the URL of a store, which `what` names, as SQLAlchemy understands it.

    Raises WrongUsage, whose message never has the password.
    """
    if _SQLITE.fullmatch(url):
        return url
    if _POSTGRESQL.match(url):
        return _POSTGRESQL.sub("postgresql+psycopg://", url, count=1)
    raise WrongUsage(
        f"the {what} must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE; this is neither"
    )
