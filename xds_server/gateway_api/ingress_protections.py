"""Annotations without an equal that may protect something: the requests of their Ingress must fail."""

from __future__ import annotations

import re

_PROTECTS = re.compile(
    r"auth|allow|deny|(?<!limit-)whitelist|blacklist|snippet|modsecurity|owasp|waf|satisfy|verify|proxy-ssl-secret|passthrough|middleware|plugin"
    r"|jwt|oidc|oauth|mtls|client-?cert|tls\.options|policy|policies|jwks|api-?key|basic-|cidr|security|acl"
)
"""Names of annotations that may protect something."""
_OTHER_NAMES = re.compile(
    r"scheme|private|internal|conditions\.|(^|\.)rule$|shield|(proxy|request)-(set|del|add)-|hide-headers|^headers$|^config-"
)
"""Names that say it only in some controllers: load balancers without public addresses, conditions on requests, headers."""
_HARMLESS = frozenset(
    (
        *("add_header", "more_set_headers", "add_trailer", "expires", "etag", "charset", "default_type"),
        *("gzip", "gzip_types", "gzip_comp_level", "gzip_min_length", "gzip_vary", "gzip_proxied", "brotli"),
        *("proxy_buffering", "proxy_buffers", "proxy_buffer_size", "proxy_busy_buffers_size"),
        *("proxy_request_buffering", "proxy_read_timeout", "proxy_send_timeout", "proxy_connect_timeout"),
        *("client_body_buffer_size", "client_body_timeout", "send_timeout", "keepalive_timeout"),
        *("tcp_nodelay", "tcp_nopush", "sendfile", "access_log", "log_subrequest", "log_not_found"),
    )
)
"""Directives of nginx that decide neither who gets what nor what a Service is told of its client."""
_DIRECTIVE = re.compile(
    r"""(?:\s|\#[^\n]*(?:\n|\Z))*(?:\Z|([a-z_]+)(?:[^;{}"'\#\\]|(?<=\s)"(?:[^"\\]|\\.)*"|(?<=\s)'(?:[^'\\]|\\.)*')*;)""",
    re.DOTALL,
)
"""Comments, and then one directive without a block, or the end. Within a word, a quote is a character as any other."""
_OFF = frozenset(("", "false", "off", "internet-facing"))
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
        return not _is_harmless(value)
    named = _PROTECTS.search(name.lower()) or _OTHER_NAMES.search(name.lower())
    return named is not None and value.strip().lower() not in _OFF


def _is_harmless(snippet: str) -> bool:
    """True if a snippet has only directives that are known to be harmless."""
    end = 0
    while end < len(snippet):
        found = _DIRECTIVE.match(snippet, end)
        if found is None or (found[1] is not None and found[1] not in _HARMLESS):
            return False
        end = found.end()
    return True


def equal_policy(name: str) -> str:
    """Return the policy of the gateway language that does what an annotation does, as a remedy has it."""
    return next((equal for word, equal in _EQUALS if word in name), "a policy of the gateway language")
