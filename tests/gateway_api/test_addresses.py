"""Addresses that a Gateway asks for: it is programmed when it has each of them."""

from __future__ import annotations

from typing import Any

import pytest

from xds_server.gateway_api.conditions import Condition, GatewayStatus, accepted
from xds_server.gateway_api.statuses import gateway_status

PROGRAMMED = Condition("Programmed", True, "Programmed")


def _programmed(wanted: tuple[str, ...], assigned: tuple[str, ...]) -> tuple[str, str, str]:
    status = GatewayStatus(
        key=("shop", "web"),
        generation=1,
        conditions=(accepted(),),
        listeners=(),
        wanted_addresses=wanted,
    )
    found: Any = gateway_status(status, assigned, PROGRAMMED)["conditions"][-1]
    return found["status"], found["reason"], found["message"]


@pytest.mark.parametrize(
    ("wanted", "assigned", "reason", "message"),
    [
        ((), ("192.0.2.1",), "Programmed", ""),
        ((), (), "AddressNotAssigned", "its Service has no address yet"),
        (("192.0.2.1",), ("192.0.2.1",), "Programmed", ""),
        (
            ("192.0.2.1",),
            ("192.0.2.2",),
            "AddressNotUsable",
            "the load balancer has not assigned 192.0.2.1: it has 192.0.2.2",
        ),
        (
            ("192.0.2.1",),
            (),
            "AddressNotUsable",
            "the load balancer has not assigned 192.0.2.1: it has none yet",
        ),
        (
            ("192.0.2.1", "192.0.2.2"),
            ("192.0.2.1",),
            "AddressNotUsable",
            "the load balancer has not assigned 192.0.2.2: it has 192.0.2.1; a Service can ask for one address",
        ),
    ],
)
def test_a_gateway_has_what_it_asks_for(
    wanted: tuple[str, ...], assigned: tuple[str, ...], reason: str, message: str
) -> None:
    assert _programmed(wanted, assigned) == (str(reason == "Programmed"), reason, message)
