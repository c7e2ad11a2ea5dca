"""Counts the bytes of a report while it passes, however long it is."""

import logging

from filters.ext_proc import Change, Processor, Request, Response, change

log = logging.getLogger(__name__)


class Reports(Processor):
    def __init__(self) -> None:
        self.bytes = 0

    async def response_headers(self, request: Request, response: Response) -> Change:
        return change({"x-bytes": response.headers.get("content-length", "counted")})

    async def response_chunk(self, request: Request, response: Response, chunk: bytes, last: bool) -> bytes:
        self.bytes += len(chunk)
        if last:
            log.info("report sent id=%s bytes=%d", request.id, self.bytes)
        return chunk
