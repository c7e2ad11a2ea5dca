"""Which commit an operator wants to be served in the place of the newest one, and which commits were served before."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xds_server.errors import EnvironmentFailed, WrongUsage

log = logging.getLogger(__name__)

REMEMBERED = 50
"""Served commits that are remembered."""
_SHORTEST = 4
"""Digits of an abbreviated id, at least, as in git."""


@dataclass(frozen=True, slots=True)
class Pin:
    """A pinned commit. `since` is Unix time."""

    commit: str
    since: float


@dataclass(slots=True)
class Pins:
    """The pinned commit and the served ones, the newest last. They are kept in `file`, if there is one."""

    file: Path | None = None
    pin: Pin | None = None
    served: list[str] = field(default_factory=list)
    _written: bool = field(default=True, init=False)

    @classmethod
    def read(cls, file: Path | None) -> Pins:
        """Read the file. Raises EnvironmentFailed if it is damaged, because a newer commit must not be served by mistake."""
        if file is None or not file.exists():
            return cls(file)
        try:
            found: Any = json.loads(file.read_text())
            pin = found["pin"]
            served = [str(one) for one in found["served"]]
            return cls(file, None if pin is None else Pin(str(pin["commit"]), float(pin["since"])), served)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EnvironmentFailed(
                f"{file} cannot be read ({error!r}), so it is not known whether a commit is pinned; "
                "delete the file to serve the newest commit"
            ) from None

    def set(self, pin: Pin | None) -> None:
        """Pin a commit, or none. It holds also if it cannot be written, because somebody may have to go back now."""
        self.pin = pin
        self._write()

    @property
    def survives(self) -> bool:
        """True if a restart keeps the pin."""
        return self.file is not None and self._written

    def holds(self, commit: str) -> bool:
        """True if this commit is pinned."""
        return self.pin is not None and self.pin.commit == commit

    def note_served(self, commit: str) -> None:
        """Remember that a commit is served. One that an operator goes back to keeps its place among the others."""
        if self.served[-1:] == [commit] or (commit in self.served and self.holds(commit)):
            return
        self.served = [*(one for one in self.served if one != commit), commit][-REMEMBERED:]
        self._write()

    def forget_served(self, commit: str) -> None:
        """Do not remember any more that a commit was served, because it was withdrawn."""
        if commit in self.served:
            self.served.remove(commit)
            self._write()

    def earlier(self) -> str:
        """Return the commit that was served before the one of now. Raises WrongUsage if none is known."""
        now = self.pin.commit if self.pin is not None else next(reversed(self.served), "")
        place = self.served.index(now) if now in self.served else len(self.served)
        if not place:
            raise WrongUsage("no earlier commit is known; name one: xds rollback COMMIT")
        return self.served[place - 1]

    def whole(self, text: str) -> str:
        """Return the id of a served commit by its first digits, or the text itself. Raises WrongUsage if there are several."""
        if len(text) < _SHORTEST:
            return text
        found = [one for one in self.served if one.startswith(text)]
        if len(found) > 1:
            raise WrongUsage(f"'{text}' means several commits: {', '.join(one[:12] for one in found)}")
        return found[0] if found else text

    def _write(self) -> None:
        try:
            self._save()
        except OSError as error:
            self._written = False
            log.error(
                "%s cannot be written, so a restart forgets what is pinned: %s", self.file, error.strerror
            )
        else:
            self._written = True

    def _save(self) -> None:
        if self.file is None:
            return
        content = {"pin": asdict(self.pin) if self.pin is not None else None, "served": self.served}
        with tempfile.NamedTemporaryFile(
            "w", dir=self.file.parent, prefix=self.file.name, delete=False
        ) as new:
            try:
                new.write(json.dumps(content))
                new.flush()
                os.fsync(new.fileno())
                Path(new.name).replace(self.file)
            except OSError:
                Path(new.name).unlink(missing_ok=True)
                raise
