"""python -m filters.waf.install: put the OWASP Core Rule Set where policy servers find it.

The rules come from the Go module coraza-coreruleset, which has the files of a release as they are, and whose hash Go
compares with its checksum database. So this needs the command `go`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from filters.waf.crs import INSTALLED, VARIABLE, NotInstalledError, folder, version

MODULE = "github.com/corazawaf/coraza-coreruleset/v4@v4.25.0"
CHECKSUM = "h1:tqFO1lfVpTiyWtlN618OXpZMfw+nnN0Q4///W5W+/HM="
"""The hash of the module, as in a go.sum."""
LONGEST = 300.0
"""Seconds that a download may take."""


class CannotInstallError(Exception):
    """The rules could not be downloaded. The message is one line."""


def module() -> Path:
    """The folder of the module in Go's cache, which also has the tests of the rules. Raises CannotInstallError."""
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        raise CannotInstallError("the command go is missing")
    command = [go, "mod", "download", "-json", MODULE]
    with tempfile.TemporaryDirectory() as empty:  # no go.mod of a project around
        try:
            done = subprocess.run(command, cwd=empty, capture_output=True, text=True, timeout=LONGEST)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CannotInstallError(str(error)) from None
    try:
        told = json.loads(done.stdout)
        found, checksum = Path(told["Dir"]), told["Sum"]
    except (ValueError, KeyError):
        raise CannotInstallError(done.stderr.strip().rpartition("\n")[2] or done.stdout.strip()) from None
    if checksum != CHECKSUM:
        raise CannotInstallError(f"{MODULE} has the hash {checksum}, not {CHECKSUM}")
    return found


def install(target: Path = INSTALLED) -> None:
    """Copy the rules to a folder, complete or not at all. Raises CannotInstallError."""
    source = module()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as made:
        rules = Path(made, "crs")
        shutil.copytree(source / "rules" / "@owasp_crs", rules, copy_function=shutil.copyfile)
        shutil.copyfile(source / "rules" / "LICENSE", rules / "LICENSE")
        if target.exists():
            shutil.rmtree(target)
        rules.rename(target)


def main() -> int:
    """Install the rules unless they are there, and say where they are."""
    try:
        found = folder()
    except NotInstalledError:
        try:
            install()
            found = folder()
        except (CannotInstallError, NotInstalledError) as error:
            sys.stderr.write(
                f"the Core Rule Set could not be installed: {error}; install Go 1.23 or later, or unpack a release of "
                f"https://github.com/coreruleset/coreruleset and set {VARIABLE} to its folder\n"
            )
            return 1
    sys.stdout.write(f"the Core Rule Set {version(found)} is in {found}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
