"""The tree of everything a user can cause. Each error says what to do; the command turns it into an exit code."""

from __future__ import annotations

from filters.language import Problem


class XdsError(Exception):
    """The root. `exit_code` is what the command ends with."""

    exit_code = 1


class InvalidGateway(XdsError):  # noqa: N818 - it carries the user's mistakes, as data
    """A gateway with mistakes: `problems` has every one of them with its place."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class UnreadableFolder(XdsError):  # noqa: N818 - as above
    """The gateway's folder, or a file in it, cannot be read."""


class WrongUsage(XdsError):  # noqa: N818 - as above
    """The command was called with arguments that make no sense together."""

    exit_code = 2


class EnvironmentFailed(XdsError):  # noqa: N818 - as above
    """Something outside of the gateway failed: no Envoy, a port that is taken, no such server."""

    exit_code = 3
