"""A small OpenID provider: it logs everybody in as `subject`, and checks all that a client must send."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.support import tokens
from tests.support.ports import free_port

CLIENT, SECRET = "shop-client", "client-secret-of-the-tests"


class OpenIdProvider:
    """Listens on 127.0.0.1. Use as a context manager.

    `claims` are added to identity tokens; `lifetime` (seconds) is that of access tokens; `refuse` makes the token
    endpoint answer with an error, not `refreshes` only to refresh tokens; `grants` are the grant types that were
    asked for.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.claims: dict[str, Any] = {}
        self.lifetime = 600
        self.refuse = False
        self.refreshes = True
        self.grants: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        self._nonce: dict[str, str] = {}
        self._refresh: set[str] = set()
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def authorize(self, query: dict[str, str]) -> str:
        """Where the browser is sent back to (RFC 6749 section 4.1.2)."""
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        code = secrets.token_urlsafe(16)
        self._codes[code] = query
        return query["redirect_uri"] + "?" + urlencode({"code": code, "state": query["state"]})

    def configuration(self) -> dict[str, str]:
        """Its own description (OpenID Connect Discovery 1.0, section 3)."""
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
        }

    def token(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Tokens for a code or a refresh token (RFC 6749 sections 4.1.3 and 6, RFC 7636 section 4.6)."""
        self.grants.append(form.get("grant_type", ""))
        if self.refuse or (form.get("client_id"), form.get("client_secret")) != (CLIENT, SECRET):
            return 401, {"error": "invalid_client"}
        if form["grant_type"] == "refresh_token":
            if not self.refreshes or form["refresh_token"] not in self._refresh:
                return 400, {"error": "invalid_grant"}
        elif not self._proves(form):
            return 400, {"error": "invalid_grant"}
        refresh = secrets.token_urlsafe(16)
        self._refresh.add(refresh)
        return 200, {
            "access_token": secrets.token_urlsafe(16),
            "token_type": "Bearer",
            "expires_in": self.lifetime,
            "refresh_token": refresh,
            "id_token": tokens.token(**{"aud": CLIENT, **self._nonce, **self.claims}),
        }

    def _proves(self, form: dict[str, str]) -> bool:
        asked = self._codes.pop(form["code"], None)
        if asked is None or asked["redirect_uri"] != form["redirect_uri"]:
            return False
        self._nonce = {"nonce": asked["nonce"]} if "nonce" in asked else {}
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                if url.path == "/authorize":
                    self.send_response(302)
                    self.send_header("location", provider.authorize(query))
                    self.end_headers()
                elif url.path == "/.well-known/openid-configuration":
                    self._json(200, provider.configuration())
                else:
                    self._json(200, json.loads(tokens.jwks()))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                self._json(*provider.token(form))

            def _json(self, status: int, value: dict[str, Any]) -> None:
                content = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
