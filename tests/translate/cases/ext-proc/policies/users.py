"""The control plane reads this and does not run it."""

from filters.ext_proc import Processor


class Whole(Processor):
    async def request_headers(self, request):
        return None

    async def request_body(self, request, body):
        return body


class Pieces(Processor):
    async def response_chunk(self, request, response, chunk, last):
        return chunk
