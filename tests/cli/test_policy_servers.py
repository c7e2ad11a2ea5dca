"""Which policy servers an admin address stands for."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from xds_server.cli.policy_servers import each
from xds_server.errors import WrongUsage


def resolve(*addresses: str) -> Any:
    def found(host: str, port: int, family: int, kind: int) -> list[Any]:
        assert (host, family, kind) == ("servers.test", socket.AF_INET, socket.SOCK_STREAM)
        return [(family, kind, 6, "", (address, port)) for address in addresses]

    return found


def test_a_name_with_several_addresses_stands_for_all() -> None:
    addresses = resolve("10.0.0.2", "10.0.0.1", "10.0.0.2")
    assert each("servers.test:19001", addresses) == ("10.0.0.1:19001", "10.0.0.2:19001")
    assert each("servers.test:19001", resolve("10.0.0.1")) == ("servers.test:19001",)


@pytest.mark.parametrize(
    "admin", ["unix:/run/admin.sock", "[::1]:19001", "localhost:19001", "127.0.0.1:19001"]
)
def test_another_address_is_kept(admin: str) -> None:
    assert each(admin) == (admin,)


def test_what_is_no_address_is_wrong_usage() -> None:
    with pytest.raises(WrongUsage):
        each("servers.test")
