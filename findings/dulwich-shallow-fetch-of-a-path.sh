#!/bin/sh
# dulwich 1.2.21: a fetch with depth=1 from a repository on this machine, by its path, walks the whole history, and costs memory
# for each commit. The same fetch over the git protocol does not.
#
# Source: dulwich/client.py, LocalGitClient.fetch; git-fetch(1), --depth.
# One expects that a shallow fetch costs what one commit costs, by either way, and that a path is the cheaper one.
# Needs: git, which makes the repository and serves it.
set -eu
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dulwich==1.2.21
git init --quiet --bare --initial-branch=main "$folder/many.git"
python3 - <<'PYTHON' | git -C "$folder/many.git" fast-import --quiet
for number in range(20_000):
    print(f"commit refs/heads/main\ncommitter A <a@example.com> {1_700_000_000 + number} +0000\ndata 1\nc")
    text = f"number: {number}"
    print(f"M 100644 inline gateway.yaml\ndata {len(text)}\n{text}\n")
PYTHON
git -C "$folder/many.git" gc --quiet
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
git daemon --base-path="$folder" --export-all --listen=127.0.0.1 --port="$port" "$folder" 2>/dev/null &
server=$!
cat >"$folder/fetch.py" <<'PYTHON'
import os
import resource
import sys
import time

from dulwich.client import get_transport_and_path
from dulwich.repo import Repo

url, target = sys.argv[1:]
os.makedirs(target)
repository = Repo.init_bare(target)
for _ in range(100):
    try:
        client, path = get_transport_and_path(url)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.process_time()
        client.fetch(path, repository, lambda refs, depth=None: [refs[b"refs/heads/main"]], depth=1)
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
print(f"{url.partition(':')[0]}: {time.process_time() - started:.1f} s of processor time, {grown} MiB more memory", file=sys.stderr)
print(grown)
sys.stdout.flush()
os._exit(0)
PYTHON
served=$("$folder/venv/bin/python" "$folder/fetch.py" "git://127.0.0.1:$port/many.git" "$folder/one")
path=$("$folder/venv/bin/python" "$folder/fetch.py" "$folder/many.git" "$folder/two")
if [ "$path" -gt 100 ] && [ "$served" -lt 30 ]; then
  echo "by the path: $path MiB, over the git protocol: $served MiB"
else
  echo "this has changed: $path MiB by the path, $served MiB over the git protocol"
  exit 1
fi
