"""Kong's `jwt`: each credential of a consumer is an issuer, because a token names its credential by the claim `iss`."""

from __future__ import annotations

import json
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from xds_server.imports.draft import Draft, usable
from xds_server.imports.source import Field

_KINDS: dict[str, type[RSAKey | ECKey | OKPKey]] = {"RS": RSAKey, "PS": RSAKey, "ES": ECKey, "Ed": OKPKey}
"""The kind of a key by the beginning of its algorithm."""
_CLAIM = "iss"


class Tokens:
    """The issuers of all consumers."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._issuers: list[str] = []

    def add(self, consumer: str, credential: Field, value: dict[str, Any]) -> None:
        """Add a credential to a consumer. Secrets that the issuer shares (HS256) are no public keys."""
        algorithm, issuer = credential.text("algorithm", default="HS256"), credential.text("key")
        key = self._public_key(algorithm, credential.text("rsa_public_key"))
        if key is None or not issuer:
            credential.read()
            self._draft.insecure(
                credential,
                f"a token of {algorithm} cannot be verified with a public key, so this credential is not imported",
                "let the issuer sign with a key pair, and write its public key under identity",
            )
            return
        name = self._draft.name("identity", f"{consumer}-{len(self._issuers) + 1}")
        file = f"jwks/{usable(name)}.json"
        self._draft.files[file] = json.dumps({"keys": [key]}).encode()
        self._draft.add("identity", name, {"issuer": issuer, "jwks": {"file": file}})
        self._issuers.append(name)
        value.setdefault("jwt", []).append({"provider": name, "claim": _CLAIM, "value": issuer})

    @staticmethod
    def _public_key(algorithm: str, text: str) -> Any:
        kind = _KINDS.get(algorithm[:2])
        if kind is None or not text:
            return None
        try:
            return {**kind.import_key(text).as_dict(private=False), "alg": algorithm, "use": "sig"}
        except (ValueError, JoseError):
            return None

    def policy(self, config: Field) -> dict[str, Any] | None:
        """Return `jwt` for the plugin, None if it has no equal."""
        claim = config.text("key_claim_name", default=_CLAIM)
        claims = config.texts("claims_to_verify")
        config.read("secret_is_base64"), config.read("run_on_preflight"), config.read("realm")
        headers = [one for one in config.texts("header_names") if one.lower() != "authorization"]
        places = [*headers, *config.texts("cookie_names")]
        config.read("maximum_expiration")
        if claim != _CLAIM or not self._issuers or places or config.number("maximum_expiration"):
            return None
        if "exp" in claims:
            for name in self._issuers:
                self._draft.sections["identity"][name]["require_expiration"] = True
        if parameters := config.texts("uri_param_names") or ["jwt"]:
            self._draft.warn(
                config,
                f"tokens in the query parameter {', '.join(parameters)} are not read",
                "write from_query at the providers under identity",
            )
        policy: dict[str, Any] = {"any": list(self._issuers)}
        if config.text("anonymous"):
            policy["optional"] = True
        return policy
