"""Tokens of HTTP: names of headers, methods and cookies."""

from __future__ import annotations

TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - no password
"""A regular expression for a token (RFC 9110 section 5.6.2)."""
