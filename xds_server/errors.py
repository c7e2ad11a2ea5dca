"""The tree of errors that a user can cause. Each message has a remedy, and each class has the command's exit code."""

from __future__ import annotations

from filters.language import Problem


class XdsError(Exception):
    """The root of the tree. `exit_code` is that of the command."""

    exit_code = 1


class InvalidGateway(XdsError):  # noqa: N818 - it carries the user's mistakes, as data
    """A gateway with errors. `problems` has all of them, each with its place."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class UnreadableFolder(XdsError):  # noqa: N818 - as above
    """The gateway's folder, or a file in it, cannot be read."""


class InvalidKubeconfig(XdsError):  # noqa: N818 - as above
    """The kubeconfig, or what is mounted into a pod instead, cannot be used to reach an API server."""


class WrongUsage(XdsError):  # noqa: N818 - as above
    """The arguments of the command are invalid, or invalid together."""

    exit_code = 2


class EnvironmentFailed(XdsError):  # noqa: N818 - as above
    """Something outside of the gateway failed: no Envoy, a port in use, no server at an address."""

    exit_code = 3
