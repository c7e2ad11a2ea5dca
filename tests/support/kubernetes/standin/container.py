"""A container as a process: a copy-on-write view of this machine's files with the volumes of the pod."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tests.support.kubernetes.standin.node import ADDRESS
from xds_server.kubernetes.resources import Object

NONE: Mapping[str, tuple[str, ...]] = MappingProxyType({})
log = logging.getLogger(__name__)

_HOSTS = "127.0.0.1 localhost\n::1 localhost\n"


class Container:
    """One container of a pod, which is started again when it ends. `log` has its lines with their times."""

    def __init__(
        self,
        name: str,
        network: str,
        folder: Path,
        command: list[str],
        environment: Mapping[str, str],
        mounts: Object,
        user: int | None = None,
        commands: Mapping[str, tuple[str, ...]] = NONE,
    ) -> None:
        self.name, self.restarts = name, 0
        self.code: int | None = None
        self.log: list[tuple[float, bytes]] = []
        self._network, self._folder = network, folder
        self._command, self._environment, self._mounts = command, environment, mounts
        self._user, self._commands = user, commands
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    async def run(self, namespace: str, *, once: bool = False) -> None:
        """Run it until it is stopped; with `once`, until it has ended with success, as an init container."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "hosts").write_text(_HOSTS)
        (self._folder / "resolv.conf").write_text(
            f"nameserver {ADDRESS}\nsearch {namespace}.svc.cluster.local svc.cluster.local cluster.local\n"
            "options ndots:5\n"
        )
        while not self._stopping:
            self._process = await asyncio.create_subprocess_exec(
                *("ip", "netns", "exec", self._network, "unshare", "--mount", "bash", "-ec", self._script()),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                limit=2**22,
            )
            await self._read()
            self.code = code = await self._process.wait()
            if once and code == 0:
                return
            if not self._stopping:
                self.restarts += 1
                log.warning("a container ended name=%s code=%d last=%s", self.name, code, self.log[-1:])
                await asyncio.sleep(min(5, 0.5 * self.restarts))

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with (self._folder / "log").open("ab", buffering=0) as file:
            async for line in self._process.stdout:
                self.log.append((time.time(), line))
                file.write(line)

    async def stop(self) -> None:
        """End it within about a second."""
        self._stopping = True
        if self._process is None or self._process.returncode is not None:
            return
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), 1)
        except TimeoutError:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    def inside(self, words: list[str]) -> list[str]:
        """Return the words that run a command of its image beside its process."""
        assert self._process is not None, "it runs"
        command = [*self._commands.get(words[0], words[:1]), *words[1:]]
        variables = [f"{name}={value}" for name, value in self._environment.items()]
        enter = ["nsenter", "--target", str(self._process.pid), "--mount", "--net", "--root", "--wd"]
        return [*enter, "env", "-i", *variables, *command]

    def _script(self) -> str:
        root, layers = f"{self._folder}/layers/root", f"{self._folder}/layers"
        lines = [
            f"mkdir -p {layers}",
            f"mount -t tmpfs tmpfs {layers}",
            f"mkdir {layers}/upper {layers}/work {root}",
            f"mount -t overlay overlay -o lowerdir=/,upperdir={layers}/upper,workdir={layers}/work {root}",
            f"mount -t proc proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
            f"mount -t tmpfs -o mode=1777 tmpfs {root}/dev/shm",
            f"mount --rbind /sys {root}/sys",
            *(f"mount --bind {self._folder}/{name} {root}/etc/{name}" for name in ("hosts", "resolv.conf")),
        ]
        for path, folder in self._mounts.items():
            # a link in the path, such as /var/run, leads out of the root if nobody resolves it inside
            lines.append(f'target="{root}$(chroot {root} realpath -m {path})"')
            lines += ['mkdir -p "$target"', f'mount --bind {folder} "$target"']
        variables = shlex.join(f"{name}={value}" for name, value in self._environment.items())
        command, user = self._command, ""
        if self._user:  # who may not enter the folder of the program
            lines += [f"touch {root}/program", f"mount --bind {shlex.quote(command[0])} {root}/program"]
            command, user = ["/program", *command[1:]], f"--userspec={self._user}:{self._user} "
        lines += [f"cd {root}", f"exec chroot {user}{root} env -i {variables} {shlex.join(command)}"]
        return "\n".join(lines)
