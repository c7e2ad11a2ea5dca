"""Hides card numbers from the service, and tells the client which partner it is for us."""

import json

from filters.ext_proc import Change, Outcome, Processor, Request, Response, change, respond


class Partners(Processor):
    async def request_headers(self, request: Request) -> Outcome:
        self.partner = request.headers.get("x-partner", "")
        if not self.partner:
            return respond(400, {"error": "name the partner in x-partner"})
        return None

    async def request_body(self, request: Request, body: bytes) -> Outcome:
        try:
            document = json.loads(body)
        except ValueError:
            return respond(400, {"error": "the body is not JSON"})
        if isinstance(document, dict) and isinstance(document.get("card"), str):
            document["card"] = "****" + document["card"][-4:]
        return json.dumps(document).encode()

    async def response_headers(self, request: Request, response: Response) -> Change:
        return change({"x-partner": self.partner})
