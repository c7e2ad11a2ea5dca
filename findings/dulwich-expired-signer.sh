#!/usr/bin/env bash
# dulwich 1.2.21 with sshsig 0.3.1: one expired line of an allowed_signers file rejects the signatures of everybody else.
#
# Source: dulwich/signature.py, SSHSigSignatureVendor.verify, which checks the lifetime of every allowed signer and not
# only of the one whose key signed.
# Expected: as `ssh-keygen -Y verify` has it, a line with valid-before in the past matters only for its own key.
# Seen: ssh-keygen accepts the signature, and dulwich raises UntrustedSignature, "SSH key has expired", of the other key.
# Here: commits are verified by ssh-keygen (docs/decisions/111).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check dulwich==1.2.21 sshsig==0.3.1
for name in ada bob; do
    ssh-keygen -q -t ed25519 -N '' -C '' -f "$name"
done
{
    echo "bob@example.com valid-before=\"20200101Z\" $(cat bob.pub)"
    echo "ada@example.com $(cat ada.pub)"
} > allowed_signers
printf 'a commit' > data
ssh-keygen -q -Y sign -n git -f ada data 2> /dev/null
echo "ssh-keygen: $(ssh-keygen -Y verify -n git -I ada@example.com -f allowed_signers -s data.sig < data | cut -d' ' -f1)"
venv/bin/python - <<'PYTHON'
from pathlib import Path

from dulwich.signature import SSHSigSignatureVendor, UntrustedSignature

data, signature = Path("data").read_bytes(), Path("data.sig").read_bytes()
whole = Path("allowed_signers").read_text().splitlines()
Path("ada_only").write_text(f"{whole[1]}\n")
SSHSigSignatureVendor("ada_only").verify(data, signature)
print("dulwich, the file without the expired line: accepted")
try:
    SSHSigSignatureVendor("allowed_signers").verify(data, signature)
except UntrustedSignature as error:
    print(f"dulwich, the whole file: {error}")
    assert "expired" in str(error) and "bob" in str(error), error
else:
    raise SystemExit("dulwich accepts it now: this finding no longer holds")
PYTHON
