"""Hosts as network namespaces behind a bridge, between which the network can be cut.

Call `enter` first: it gives the process namespaces of its own for network, mounts and processes. So nothing of the machine
is changed, and everything ends with the process. Needs root, iproute2 and nftables.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.support.logged_process import LoggedProcess

NETWORK = "10.77.0"
_INSIDE = "XDS_CHAOS_INSIDE"
_RULES = """
table inet chaos {
  set cut { type ipv4_addr; }
  chain input { type filter hook input priority 0; ip saddr @cut drop; }
}
"""


def enter() -> None:
    """Start this command again in namespaces of its own, unless it is there already."""
    if _INSIDE in os.environ:
        return
    command = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    again = (sys.executable, "-m", "tests.chaos", *sys.argv[1:])
    os.execvpe(command[0], [*command, *again], {**os.environ, _INSIDE: "1"})


def prepare() -> None:
    """Make the bridge, at which this process has the first address."""
    Path("/run/netns").mkdir(exist_ok=True)
    call("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
    call("ip", "link", "set", "lo", "up")
    call("ip", "link", "add", "bridge", "type", "bridge")
    call("ip", "addr", "add", f"{NETWORK}.1/24", "dev", "bridge")
    call("ip", "link", "set", "bridge", "up")


class Host:
    """A host of the network: an address, a disk that can be full, and a clock that can be moved."""

    def __init__(self, name: str, number: int, folder: Path, clock: Path) -> None:
        self.name, self.address = name, f"{NETWORK}.{number}"
        self.disk = folder / name
        self._clock, self._offset = clock, folder / f"{name}.clock"
        self._connect()
        self.disk.mkdir()
        call("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(self.disk))
        self.move_clock(0)

    def _connect(self) -> None:
        inside, device = ("ip", "-n", self.name), f"to-{self.name}"
        call("ip", "netns", "add", self.name)
        call("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        call("ip", "link", "set", device, "master", "bridge", "up")
        call(*inside, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for one in ("lo", "eth0"):
            call(*inside, "link", "set", one, "up")
        call(*self._inside(), "nft", "-f", "-", given=_RULES)

    def _inside(self) -> tuple[str, ...]:
        return ("nsenter", f"--net=/run/netns/{self.name}")

    def process(self, command: Iterable[object], log: str) -> LoggedProcess:
        """Return a process on this host that is not started."""
        inside = (*self._inside(), *map(str, command))
        clock = {"LD_PRELOAD": str(self._clock), "CHAOS_CLOCK_OFFSET": str(self._offset)}
        return LoggedProcess(inside, self.disk.parent / f"{log}.log", clock)

    def move_clock(self, seconds: int) -> None:
        """Set how far the wall clock of this host's processes is ahead."""
        with self._offset.open("r+b" if self._offset.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))

    def fill_disk(self) -> None:
        """Write until nothing is free."""
        try:
            with (self.disk / "filling").open("wb") as file:
                while True:
                    file.write(bytes(2**16))
                    file.flush()
        except OSError:  # the disk is full
            pass

    def take_disk_away(self) -> None:
        """Unmount the disk, when no process needs it any more."""
        call("umount", "--lazy", str(self.disk))

    def free_disk(self) -> None:
        (self.disk / "filling").unlink(missing_ok=True)

    def cut(self, other: Host) -> None:
        """Lose every packet between this host and the other one."""
        self._drop("add", other)
        other._drop("add", self)

    def join(self, other: Host) -> None:
        """Undo `cut`."""
        self._drop("delete", other)
        other._drop("delete", self)

    def _drop(self, verb: str, other: Host) -> None:
        call(*self._inside(), "nft", verb, "element", "inet", "chaos", "cut", f"{{ {other.address} }}")


def moved_clock(folder: Path) -> Path:
    """Compile clock.c, and return the library. Raises RuntimeError."""
    library = folder / "clock.so"
    call("cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(Path(__file__).with_name("clock.c")))
    return library


def call(*command: str, given: str | None = None) -> None:
    """Run a command. Raises RuntimeError with what it says if it fails."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
