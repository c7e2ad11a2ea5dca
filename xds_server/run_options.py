"""The options of `xds run`, and the flags that name its addresses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from xds_server.proxy.binary import envoy_binary
from xds_server.serving.tls import Files
from xds_server.translate.route_trees import DEFAULT, Shape

if TYPE_CHECKING:
    from xds_server.sources.commit_status import Forge
    from xds_server.sources.git_source import GitSource

XDS, ADMIN, CONSOLE = "--xds", "--admin", "--console"
"""Flags of `xds run` for the addresses at which it listens."""
MAX_STREAMS = 20_000
"""The default of --max-streams: memory for each one is some 90 KiB."""
LARGE_FLEET = 5_000
"""Streams that one control plane should have at most, because more need replicas (docs/explanation/scale.md)."""
USAGE_STORE, USAGE_SPOOL = "sqlite:///xds-usage.db", Path("xds-usage.spool")
"""The store and the spool of usage, in the working directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitOptions:
    """The options of a gateway in git. `source` makes its source, and `branch` that of another ref of its repository."""

    source: Callable[[], GitSource]
    branch: Callable[[str], GitSource]
    webhook_secret: Path | None = None
    """The file with the secret of webhooks; None for no webhooks."""
    forge: Forge | None = None
    """Where the statuses of commits are sent; None for nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of `xds run`. A port of 0 means any free port; `drain` is in seconds.

    `prove` sends every gateway first to an Envoy without traffic. `state` is the file of the last good gateway, which
    is served after a start until the folder has been read.
    """

    folder: Path
    git: GitOptions | None = None
    """Of a gateway in git. Without it, the gateway is the `folder` on disk."""
    gateway: tuple[str, str] | None = None
    """Namespace and name of the Gateway that is served, if the folder has Kubernetes manifests with several."""
    envoy: Path | None = field(default_factory=envoy_binary)
    """The Envoy binary, or None if there is none."""
    proxy: bool = True
    prove: bool = True
    xds: str = "127.0.0.1:18000"
    admin: str = "127.0.0.1:19000"
    max_streams: int = MAX_STREAMS
    """Streams of xDS clients at a time. The limit of open files can allow fewer."""
    node_id: str = "local"
    envoy_workers: int | None = None
    drain: float = 5.0
    poll: bool = False
    envoy_log_level: str = "warning"
    policy_server: str | None = None
    """The address of a policy server that another operator runs; None starts one when a gateway needs it."""
    usage_server: str | None = None
    """The same for a usage server."""
    composer: str | None = None
    """The same for a composer."""
    composer_calls: str | None = None
    """The address at which Envoys take calls of the composer; None for a Unix socket of this process, or the default."""
    usage_store: str = USAGE_STORE
    """The URL of the store of a usage server that this process starts."""
    usage_spool: Path = USAGE_SPOOL
    marketplace: str | None = None
    """The URL of the store of the marketplace; None if the gateway has no subscriptions."""
    state: Path | None = None
    rollout_store: str | None = None
    """The URL of the store through which replicas share rollouts; None if this control plane decides alone."""
    rollout_name: str = "gateway"
    """The record of the rollout in that store."""
    tls: Files | None = None
    identities: tuple[str, ...] = ()
    secrets_anywhere: bool = False
    console: str | None = None
    """The address of the console, or None for none."""
    console_token: str | None = None
    console_asked: bool = False
    """True if a flag names the address of the console, so that it must be free."""
    log_format: str = "text"
    """The form of the logs of child processes: text or json."""
    services_log: Path | None = None
    """The file for the logs of our own services that this process starts; None for this process's own output."""
    limit_clock: Path | None = None
    """The file with the time of limits, for tests; None for the clock of this machine."""
    show_status: Callable[[str], None] | None = None
    """Shows a line about the gateway, again and again; None if the log goes to no terminal."""
    shape: Shape = DEFAULT
    """Which hosts get a tree of routes. No flag sets it."""
