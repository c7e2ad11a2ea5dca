"""mtls: the client's certificate says who calls."""

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
    """Which of the certificates that the listener accepts are accepted here."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    consumers_only: bool = option("Only certificates with the name of a consumer.", default=True)
    optional: bool = option("Let clients without a certificate pass.", default=False)

    @classmethod
    def short(cls, value: bool) -> MtlsSettings:
        """Read ``true``."""
        return cls()

    def rule(self) -> MtlsRule:
        """What the script needs to know."""
        return {"consumers_only": self.consumers_only}

    def challenge(self) -> str:
        """No registered scheme is for certificates; this one tells a person what is needed."""
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
        return NOTHING  # `Authentication` gives the script what it needs of every method
