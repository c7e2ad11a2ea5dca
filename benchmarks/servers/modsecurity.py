"""ModSecurity behind the protocol of benchmarks/waf.py: JSON lines with requests in, lines with the rules that matched and times out."""

from __future__ import annotations

import base64
import json
import sys
import time
from pathlib import Path

from filters.waf.engine import Engine, text_of
from filters.waf.frames import Inquiry
from tests.support.crs_suite import PROFILE, SOURCE


def main() -> None:
    engine = Engine(Path(sys.argv[2]))
    engine.load({PROFILE: SOURCE}, Path(sys.argv[1]).read_text())
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        headers = [(name, value) for name, value in asked["headers"]]
        body = base64.b64decode(asked["body"])
        inquiry = Inquiry(
            PROFILE, "127.0.0.1", asked["method"], asked["target"], asked["version"], headers, body
        )
        messages = engine.run(inquiry)[0].get_rule_messages()
        matched = [(one.rule_id, text_of(one, "message"), text_of(one, "data")) for one in messages]
        times = []
        for _ in range(asked["times"]):
            began = time.perf_counter()
            engine.run(inquiry)
            times.append((time.perf_counter() - began) * 1e6)
        print(json.dumps({"matched": matched, "times": sorted(times)}), flush=True)


if __name__ == "__main__":
    main()
