"""The rules for nftables of the guide, loaded into a network namespace: they count the connections of each address."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "withstand-floods.md"
CLIENT = """
import socket
server = socket.create_server(("", 80), backlog=512)
def opened(source):
    found = []
    while len(found) < 150:
        try:
            found.append(socket.create_connection(("127.0.0.1", 80), timeout=10, source_address=(source, 0)))
        except ConnectionRefusedError:
            break
    return found
attacker = opened("127.0.0.2")
other = opened("127.0.0.3")[:1]
print(len(attacker), len(other))
"""


@pytest.mark.skipif(
    os.getuid() != 0 or not all(map(shutil.which, ("nft", "ip", "unshare"))),
    reason="needs root, nftables and iproute2",
)
def test_an_address_has_a_hundred_connections_and_others_have_theirs(tmp_path: Path) -> None:
    (rules,) = re.findall(r"```\n(table inet .*?)```", GUIDE.read_text(), re.DOTALL)
    (tmp_path / "floods.nft").write_text(rules)
    (tmp_path / "client.py").write_text(CLIENT)
    load = f"nft -f {tmp_path}/floods.nft"
    script = f"ip link set lo up && {load} && {load} && {sys.executable} {tmp_path}/client.py"
    ran = subprocess.run(
        ["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.stdout, ran.stderr) == ("100 1\n", "")
