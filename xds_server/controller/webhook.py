"""The webhook that gives pods their sidecars: HTTPS with a certificate of the controller's authority."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import tempfile
from collections.abc import Callable

from aiohttp import web

from xds_server.sidecar.admission import answer
from xds_server.sidecar.identity import SidecarSettings

log = logging.getLogger(__name__)

PATH = "/inject"
_LONGEST = 8 << 20
"""Bytes of a review: an object has at most about 1.5 MiB, and a review may have two."""
_LOOK = 60.0
"""Seconds between two looks whether the certificate is another one."""


class Webhook:
    """Answers admission reviews of pods. `certificate` returns a certificate and its key, in PEM, and `token_of` a secret
    for a name.
    """

    def __init__(
        self,
        settings: SidecarSettings,
        certificate: Callable[[], tuple[bytes, bytes]],
        token_of: Callable[[str], str],
    ) -> None:
        self._settings, self._certificate, self._token_of = settings, certificate, token_of
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._loaded: tuple[bytes, bytes] | None = None
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError."""
        self._load()
        application = web.Application(client_max_size=_LONGEST)
        application.router.add_post(PATH, self._review)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host or None, port, ssl_context=self._context).start()

    async def stop(self) -> None:
        """Stop to listen."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def run(self) -> None:
        """Use a new certificate for new connections, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK)
            self._load()

    def _load(self) -> None:
        found = self._certificate()
        if found == self._loaded:
            return
        with tempfile.NamedTemporaryFile() as file:  # the module ssl reads files only
            file.write(found[0] + found[1])
            file.flush()
            self._context.load_cert_chain(file.name)
        self._loaded = found

    async def _review(self, request: web.Request) -> web.Response:
        try:
            found = answer(json.loads(await request.text()), self._settings, self._token_of)
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        status = found["response"].get("status")
        if status is not None:
            log.warning("rejected a pod reason=%s", status["message"])
        return web.json_response(found)
