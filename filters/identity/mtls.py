"""mtls: the client's certificate identifies the caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from filters.identity.script_rules import MtlsRule
from filters.language import Shorthand, option
from filters.model.identity import Consumer
from filters.model.methods import failure
from filters.policy import NOTHING, Context, Policy, RoutePart, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class MtlsSettings:
    """The certificates that the route accepts, out of those that the listener accepts."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    consumers_only: bool = option("Only certificates with the name of a consumer.", default=True)
    optional: bool = option("Let clients without a certificate pass.", default=False)

    @classmethod
    def short(cls, value: bool) -> MtlsSettings:
        """The settings that ``true`` stands for."""
        return cls()

    def rule(self) -> MtlsRule:
        """The part of the route's rule for the identity script."""
        return {"consumers_only": self.consumers_only}

    def challenge(self) -> str:
        """The WWW-Authenticate challenge. No registered scheme is for certificates; this one is for people."""
        return 'Certificate realm="gateway"'


class Mtls(Policy[MtlsSettings]):
    """Envoy verifies the certificate in the handshake; the identity script maps its names to a consumer."""

    key = "mtls"
    stage = Stage.AUTHENTICATE
    settings = MtlsSettings
    enforced_by = "Envoy (TLS handshake, generated Lua: name to consumer)"
    reasons = (
        failure("certificate_missing", "A client certificate is required"),
        failure("certificate_unknown", "The client certificate is not accepted"),
    )

    def identifies(self, consumer: Consumer) -> bool:
        return bool(consumer.certificates)

    def on_route(self, settings: MtlsSettings, context: Context) -> RoutePart:
        return NOTHING  # `Authentication` writes the script's rule for all methods
