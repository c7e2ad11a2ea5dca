"""`make demo` runs the two services and the gateway in front of them, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from services import service  # noqa: E402 - a file in this folder, whatever the current directory is

LINES = """
The gateway of examples/quickstart/gateway is starting. When its log says "ready", try in another terminal:

  curl -i http://localhost:{port}/api/users/1
  curl -i http://localhost:{port}/api/orders/7
  curl -i -X DELETE http://localhost:{port}/api/orders/7     # 405, with Allow
  curl -i http://localhost:{port}/nowhere                    # 404, as problem+json
  curl -i -H 'Host: admin.localhost' http://localhost:{port}/

Then break examples/quickstart/gateway/gateway.yaml on purpose and watch this terminal: it shows the line and the
remedy, and the requests above still succeed. Press Ctrl-C to end.
"""


def main() -> int:
    """Run until Ctrl-C or SIGTERM. Returns the exit code of `xds run`."""
    for name, variable, default in (("users", "USERS_ADDRESS", 9001), ("orders", "ORDERS_ADDRESS", 9002)):
        port = int(os.environ.get(variable, f":{default}").rpartition(":")[2])
        threading.Thread(target=service(name, port).serve_forever, daemon=True).start()
    print(LINES.format(port=os.environ.get("GATEWAY_PORT", "8080")), flush=True)
    command = [sys.executable, "-m", "xds_server", "run", str(HERE / "gateway"), *sys.argv[1:]]
    process = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


if __name__ == "__main__":
    sys.exit(main())
