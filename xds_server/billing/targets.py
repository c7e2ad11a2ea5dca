"""Billing systems to which calls are exported: CloudEvents over HTTP, Lago and Stripe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import urllib3

from xds_server.billing.export import Event, EventsRejected, ExportFailed
from xds_server.usage.report import Row, cloud_events

TIMEOUT = 10.0
"""Seconds for an answer."""
_OF_THE_BODY = (400, 404, 413, 422)
"""Statuses with which a target says that it will not take what was sent. Lago answers 404 and 422, Stripe 400 and 404."""
CODE = "calls"
"""The name of what is counted: Lago's billable metric and Stripe's meter."""


class _Http:
    """Sends requests. A failure is told without the credentials."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._pool = urllib3.PoolManager(timeout=TIMEOUT, retries=False)
        self._headers = dict(headers)

    def post(self, url: str, body: bytes, content_type: str, **headers: str) -> None:
        """Send a body. Raises ExportFailed, and EventsRejected for a status by which the body itself is wrong."""
        sent = {**self._headers, "content-type": content_type, **headers}
        try:
            answer = self._pool.request("POST", url, body=body, headers=sent, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            raise ExportFailed(f"{url} cannot be reached: {type(error).__name__}") from None
        if not 200 <= answer.status < 300:
            text = answer.data[:300].decode("utf-8", "replace")
            failed = EventsRejected if answer.status in _OF_THE_BODY else ExportFailed
            raise failed(f"{url} rejects the events with {answer.status}: {text}")


def _name(kind: str, url: str) -> str:
    """Return a name for a target, which is another one for each address."""
    return f"{kind}:{hashlib.sha256(url.encode()).hexdigest()[:32]}"


class CloudEventsTarget:
    """Any receiver of batches of CloudEvents 1.0.2 in JSON."""

    def __init__(self, url: str, token: str = "", source: str = "/xds/billing") -> None:
        self.name = _name("cloudevents", url)
        self._url, self._source = url, source
        self._http = _Http({"authorization": f"Bearer {token}"} if token else {})

    def takes(self, consumer: str) -> bool:
        """True: it takes all."""
        return bool(consumer)

    def send(self, events: Sequence[Event]) -> None:
        """Send events. Raises ExportFailed, EventsRejected."""
        rows: list[Row] = [
            {"consumer": one.consumer, "plan": one.plan, "hour": one.hour, "requests": one.calls}
            for one in events
        ]
        batch = cloud_events(rows, self._source, 0, 0)
        body = [{**made, "id": one.id} for made, one in zip(batch, events, strict=True)]
        self._http.post(self._url, json.dumps(body).encode(), "application/cloudevents-batch+json")


class LagoTarget:
    """Lago: batches of events, whose `transaction_id` makes them count once (POST /api/v1/events/batch).

    The external id of a subscription in Lago is the consumer.
    """

    def __init__(self, url: str, token: str) -> None:
        self.name = _name("lago", url)
        self._url = f"{url.rstrip('/')}/api/v1/events/batch"
        self._http = _Http({"authorization": f"Bearer {token}"})

    def takes(self, consumer: str) -> bool:
        """True: it takes all."""
        return bool(consumer)

    def send(self, events: Sequence[Event]) -> None:
        """Send events. Raises ExportFailed, EventsRejected."""
        body = {"events": [self._event(one) for one in events]}
        self._http.post(self._url, json.dumps(body).encode(), "application/json")

    def _event(self, one: Event) -> dict[str, Any]:
        return {
            "transaction_id": one.id,
            "external_subscription_id": one.consumer,
            "code": CODE,
            "timestamp": one.hour * 3600,
            "properties": {"calls": one.calls, "plan": one.plan},
        }


class StripeTarget:
    """Stripe: one meter event for each, whose `identifier` makes it count once (POST /v1/billing/meter_events).

    `customers` are Stripe's customers by consumer; calls of others wait until they have one.
    """

    def __init__(self, url: str, token: str, customers: Mapping[str, str]) -> None:
        self.name = _name("stripe", url)
        self._url = f"{url.rstrip('/')}/v1/billing/meter_events"
        self._customers = customers
        self._http = _Http({"authorization": f"Bearer {token}"})

    def takes(self, consumer: str) -> bool:
        """True if the consumer has a customer."""
        return consumer in self._customers

    def send(self, events: Sequence[Event]) -> None:
        """Send events one by one. Raises ExportFailed, EventsRejected."""
        for one in events:
            customer = self._customers[one.consumer]
            form = {
                "event_name": CODE,
                "identifier": one.id,
                "timestamp": one.hour * 3600,
                "payload[stripe_customer_id]": customer,
                "payload[value]": one.calls,
            }
            body = urlencode(form).encode()
            key = {"idempotency-key": one.id}
            self._http.post(self._url, body, "application/x-www-form-urlencoded", **key)
