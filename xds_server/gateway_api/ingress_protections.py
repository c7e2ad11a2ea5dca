"""Annotations without an equal that may protect something: the requests of their Ingress must fail."""

from __future__ import annotations

import re

_PROTECTS = re.compile(
    r"auth|allow|deny|(?<!limit-)whitelist|blacklist|snippet|modsecurity|owasp|waf|satisfy|verify|proxy-ssl-secret|passthrough|middleware|plugin"
    r"|jwt|oidc|oauth|mtls|client-?cert|tls\.options|policy|policies|jwks|api-?key|basic-|cidr|security|acl"
)
"""Names of annotations that may protect something."""
_DECIDES = re.compile(
    r"\b(allow|deny|satisfy|return|rewrite|if|auth_\w+|access_by_\w+|rewrite_by_\w+|limit_\w+|ssl_\w+|secure_link\w*|internal"
    r"|error_page|include|set_real_ip_from|valid_referers|modsecurity\w*|proxy_pass|proxy_ssl\w*)\b"
)
"""Directives of nginx that may decide who gets what."""
_OFF = frozenset(("", "false", "off"))
_EQUALS = (
    ("auth-url", "ext_authz"),
    ("auth-signin", "oidc"),
    ("auth-tls", "client certificates, which are at the Gateway (spec.tls.frontend)"),
    ("auth-type", "basic_auth"),
    ("auth-secret", "basic_auth"),
    ("jwt", "jwt"),
    ("source-range", "ip_access"),
)


def may_protect(name: str, value: str) -> bool:
    """True if an annotation, whose `name` has no prefix here, may decide who gets what."""
    if name.endswith("configuration-snippet"):
        return _DECIDES.search(value) is not None
    return _PROTECTS.search(name.lower()) is not None and value.strip().lower() not in _OFF


def equal_policy(name: str) -> str:
    """Return the policy of the gateway language that does what an annotation does, as a remedy has it."""
    return next((equal for word, equal in _EQUALS if word in name), "a policy of the gateway language")
