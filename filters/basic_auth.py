"""basic_auth: names and passwords (RFC 7617), known only by their hashes."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from filters.credentials import OWN_LIST, failure, identity_filter, identity_part
from filters.language import DataSource, Mistake, Shorthand, option
from filters.language.datasource import SecretSource
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicAuthSettings:
    """Names and passwords of consumers, and of an htpasswd file."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    htpasswd: SecretSource | None = option(
        "More users, as `htpasswd -s` writes them; a user who has the name of a consumer stands for it.",
        default=None,
    )
    realm: str = option(
        "What the browser's dialog says.", default="gateway", pattern=r'[^"\\\x00-\x1f]+', shape="plain text"
    )
    forward: bool = option("Whether the upstream sees the password.", default=False)
    optional: bool = option(
        "Let requests without a password pass; a wrong one is still refused.", default=False
    )

    @classmethod
    def short(cls, value: bool) -> BasicAuthSettings:
        """Read ``true``."""
        return cls()

    def rule(self) -> Mapping[str, Any]:
        """What the script needs to know."""
        lists = [OWN_LIST] + ([list_name(self.htpasswd)] if self.htpasswd is not None else [])
        return {"lists": lists, "forward": self.forward}

    def challenge(self) -> str:
        """RFC 7617 section 2.1."""
        return f'Basic realm="{self.realm}", charset="UTF-8"'


def list_name(source: DataSource) -> str:
    """The name of a list of users: where it comes from, not what it holds, so that a route does not change with it."""
    return re.sub(r"[^A-Za-z0-9./_-]", "-", f"file/{source.file}" if source.file else f"env/{source.env}")


def htpasswd(content: bytes) -> Iterator[tuple[str, str]]:
    """Names and hashes of a file's lines. Raises Mistake for a line that Envoy cannot check."""
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        name, _, entry = line.strip().partition(":")
        if not name or name.startswith("#"):
            continue
        if entry.startswith("{SHA}"):
            try:
                digest = base64.b64decode(entry[5:], validate=True)
            except ValueError:
                digest = b""
            if len(digest) == 20:
                yield name, f"sha1:{digest.hex()}"
                continue
        if re.match(r"\$(2[aby]|apr1|5|6)\$", entry):
            message = f"line {number}: a slow hash (bcrypt, MD5 or SHA crypt) cannot be checked inside Envoy"
            remedy = (
                "give generated passwords and hash them with htpasswd -s, or check passwords in ext_authz"
            )
        else:
            message, remedy = f"line {number} is not NAME:HASH", "write it with htpasswd -s"
        raise Mistake(message, remedy, path=("htpasswd",))


class BasicAuth(Policy[BasicAuthSettings]):
    """Enforced by the gateway's identity script, which stands here, behind every way to authenticate."""

    key = "basic_auth"
    stage = Stage.AUTHENTICATE
    settings = BasicAuthSettings
    enforced_by = "Envoy (generated Lua: name and hash to consumer)"
    reasons = (
        failure("basic_auth_missing", "A name and a password are needed"),
        failure("basic_auth_malformed", "The name and password are malformed"),
        failure("basic_auth_wrong", "The name or the password is wrong"),
    )

    def check(self, settings: BasicAuthSettings, context: Context) -> Iterator[Mistake]:
        """Yield a mistake for a file with hashes that Envoy cannot check, and when nobody has a password."""
        if settings.htpasswd is None:
            if not any(consumer.passwords for consumer in context.consumers.values()):
                yield Mistake("nobody has a password", "add basic_auth to a consumer, or an htpasswd file")
            return
        try:
            list(htpasswd(context.contents.get(settings.htpasswd, b"")))
        except Mistake as mistake:
            yield mistake

    def http_filters(self, used: Iterable[BasicAuthSettings], context: Context) -> tuple[HttpFilter, ...]:
        sources = {one.htpasswd for one in used if one.htpasswd is not None}
        lists = {list_name(one): tuple(htpasswd(context.contents[one])) for one in sources}
        return (identity_filter(context, lists),)

    def on_route(self, settings: BasicAuthSettings, context: Context) -> RoutePart:
        return identity_part(context)
