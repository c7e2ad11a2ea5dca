"""Signatures of commits: by ssh keys, which ssh-keygen verifies as git does, and by OpenPGP."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filters.language.problems import printable
from xds_server.errors import WrongUsage

FORMS = ("ssh", "gpg")
_SSH, _PGP = b"-----BEGIN SSH SIGNATURE-----", b"-----BEGIN PGP SIGNATURE-----"
_TIMEOUT = 20.0
"""Seconds for a run of ssh-keygen."""
_KEYGEN = "ssh-keygen"


@dataclass(frozen=True, slots=True)
class Signed:
    """What a commit's author has signed, and the signature, empty if there is none. `time` is that of the commit."""

    payload: bytes
    signature: bytes
    time: float


class Unsigned(Exception):  # noqa: N818 - a state of a commit
    """A commit has no signature of somebody who is trusted. The message says why."""


Verify = Callable[[Signed], str]
"""Returns who signed a commit. Raises Unsigned."""


def verifier(text: str) -> Verify:
    """Return what verifies commits by a value of --require-signature, ``ssh:FILE`` or ``gpg:FILE``. Raises WrongUsage.

    The file is read again for each commit, so that keys can be replaced.
    """
    form, _, name = text.partition(":")
    if form not in FORMS or not name:
        raise WrongUsage(
            f"--require-signature: '{text}' is not ssh:FILE, with a file of allowed signers as git has it, "
            "or gpg:FILE, with exported public keys"
        )
    file = Path(name)
    if not file.is_file():
        raise WrongUsage(f"--require-signature: {file} is not a file")
    return (
        (lambda signed: _by_ssh(file, signed))
        if form == "ssh"
        else (lambda signed: _by_openpgp(file, signed))
    )


def _by_ssh(signers: Path, signed: Signed) -> str:
    """Verify as git does: the key must be allowed at the time of the commit, in the namespace ``git``."""
    if not signed.signature:
        raise Unsigned("it is not signed")
    if not signed.signature.startswith(_SSH):
        raise Unsigned("it has no signature of an ssh key")
    time = datetime.fromtimestamp(signed.time, UTC).strftime("%Y%m%d%H%M%SZ")
    with tempfile.TemporaryDirectory(prefix="xds-signature-") as folder:
        file = Path(folder) / "signature"
        file.write_bytes(signed.signature)
        common = ("-f", str(signers), "-s", str(file), f"-Overify-time={time}")
        found = _keygen(("-Y", "find-principals", *common), b"")
        if found.returncode:
            raise Unsigned(_not_allowed(signers, found.stderr.decode("utf-8", "replace")))
        for principal in found.stdout.decode("utf-8", "replace").splitlines():
            if not _keygen(
                ("-Y", "verify", "-n", "git", "-I", principal, *common), signed.payload
            ).returncode:
                return principal
    raise Unsigned("its signature is not one of this commit")


def _not_allowed(signers: Path, told: str) -> str:
    """Return why no signer was found, by the file of allowed signers and what ssh-keygen says of it."""
    try:
        empty = not signers.read_bytes().strip()
    except OSError as error:
        return f"{signers} cannot be read: {error.strerror}"
    if empty:
        return f"{signers} is empty, so nobody may sign"
    reason = f"its key is not in {signers}, or was not allowed when it was committed"
    faults = [line for line in told.splitlines() if line.startswith(f"{signers}:")]
    return f"{reason}; of that file ssh-keygen says: {printable(faults[0])}" if faults else reason


def _keygen(arguments: tuple[str, ...], data: bytes) -> subprocess.CompletedProcess[bytes]:
    command = (_KEYGEN, *arguments)
    try:
        return subprocess.run(command, input=data, capture_output=True, timeout=_TIMEOUT, check=False)  # noqa: S603
    except FileNotFoundError:
        raise Unsigned(f"{_KEYGEN}, which verifies signatures, is not installed; install OpenSSH") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise Unsigned(f"{_KEYGEN} did not verify its signature: {error}") from None


def _by_openpgp(keys: Path, signed: Signed) -> str:
    import pysequoia

    if not signed.signature:
        raise Unsigned("it is not signed")
    if not signed.signature.startswith(_PGP):
        raise Unsigned("it has no OpenPGP signature")
    try:
        certificates = pysequoia.Cert.split_bytes(keys.read_bytes())
        signature = pysequoia.Sig.from_bytes(signed.signature)
        found = pysequoia.verify(bytes=signed.payload, store=lambda _ids: certificates, signature=signature)
    except OSError as error:
        raise Unsigned(f"{keys} cannot be read: {error.strerror}") from None
    except RuntimeError as error:
        reason, _, _ = str(error).partition("\n")  # a backtrace may follow
        raise Unsigned(f"it is not signed by a key of {keys}: {reason}") from None
    if not found.valid_sigs:
        raise Unsigned(f"it is not signed by a key of {keys}")
    return str(found.valid_sigs[0].certificate)
