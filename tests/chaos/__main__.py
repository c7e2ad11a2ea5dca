"""Run the chaos: ``python -m tests.chaos --seconds 3600 --seed 1 --report FILE``. Ends with 1 if a response was wrong."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos import faults, network
from tests.chaos.checks import Clients, Trials, clients
from tests.chaos.fleet import LISTENER, SERVICE, Fleet, fleet, write_gateway
from tests.support.identity_cases import sha256
from tests.support.versions import Version, replace
from tests.support.wait import wait_for

MOST = 20
"""Wrong responses of an edge that are reported one by one."""
CONVERGED = 60.0
"""Seconds after the end of a fault within which every edge must serve the newest version and decide limits again."""


@dataclass(slots=True)
class Run:
    """A run, and what it found."""

    fleet: Fleet
    chance: random.Random
    versions: list[Version]
    trials: Trials
    clients: list[Clients]
    faults: Counter[str] = field(default_factory=Counter)
    after: list[float] = field(default_factory=list)
    """Seconds from the end of each fault until everything was as it should be."""
    violations: list[str] = field(default_factory=list)

    def round(self) -> None:
        """One or two faults at once, a new version while they last, and their end."""
        drawn = faults.draw(self.fleet, self.chance)
        begin = time.monotonic()
        for fault in drawn:
            self.faults[fault.kind] += 1
            _say(f"{fault.kind}: {fault.what}")
            fault.begin()
        self.publish()
        time.sleep(self.chance.uniform(0.2, 8))
        for fault in reversed(drawn):
            fault.end()
        try:
            self.converge()
        except AssertionError as error:
            self.violation(str(error))
        stores_ended = self.look_for_ends()
        if stores_ended or any(fault.loses_counters for fault in drawn):
            self.trials.lost.append((begin, time.monotonic()))
        time.sleep(self.chance.uniform(0.5, 3))  # without a fault

    def publish(self) -> None:
        """Write the next version with a new consumer for the limit."""
        version = self.versions[-1].next(self.chance)
        self.versions.append(version)
        names = [f"trial-{number}" for number in range(max(0, version.number - 5), version.number + 1)]
        listed = [f"  {name}: {{api_keys: [{{sha256: {sha256(name)}}}]}}\n" for name in names]
        replace(self.fleet.gateway / "trials.yaml", f"consumers:\n{''.join(listed)}")
        version.write(self.fleet.gateway)

    def converge(self) -> None:
        """Wait until each edge serves the newest version and decides limits. Raises AssertionError."""
        number, begin = self.versions[-1].number, time.monotonic()
        for one in self.clients:
            wait_for(lambda one=one: one.observer.sees(number), f"version {number}", CONVERGED)
            wait_for(lambda one=one: one.counts(number), "limits to be decided", CONVERGED)
            one.observer.seen = number
        self.after.append(time.monotonic() - begin)
        self.trials.current = number

    def look_for_ends(self) -> bool:
        """Start what ended although nothing killed it. Returns True if it was a store, and reports anything else.

        Valkey has ended by itself on a full disk, and cannot read its append-only file after that (see findings/). A store
        that ended starts without its file and gets what the primary has, as an operator would do it.
        """
        stores = False
        for part in faults.ended(self.fleet):
            if part.serves_counters:
                _say(f"{part.name} ended by itself, and starts without its file")
                self.faults["a store that ended by itself"] += 1
                shutil.rmtree(part.host.disk / "appendonlydir", ignore_errors=True)
                stores = True
            else:
                self.violation(f"{part.name} ended by itself:\n{part.process.log[-2000:]}")
            part.start()
        return stores

    def violation(self, text: str) -> None:
        _say(f"VIOLATION: {text}")
        self.violations.append(text)

    def report(self, seconds: float) -> dict[str, Any]:
        statuses: Counter[str] = Counter()
        for one in self.clients:
            for (kind, status), count in one.observer.statuses.items():
                statuses[f"{kind} {status}"] += count
            self.violations += one.observer.wrong[:MOST]
        self.violations += self.trials.violations()
        return {
            "seconds": round(seconds),
            "faults": dict(sorted(self.faults.items())),
            "versions": len(self.versions),
            "requests": statuses.total(),
            "statuses": dict(sorted(statuses.items())),
            "lost_connections": sum(one.lost for one in self.clients),
            "consumers_at_their_limit": self.trials.exhausted,
            "consumers_beyond_their_limit_after_lost_counters": self.trials.exceeded,
            "seconds_until_right_again": {"median": _median(self.after), "most": max(self.after)},
            "violations": self.violations,
        }


def run(folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Run for about so many seconds, and return the report."""
    chance = random.Random(seed)
    network.prepare()
    gateway = folder / "gateway"
    write_gateway(gateway, [f"{network.NETWORK}.{number}:{SERVICE}" for number in (8, 9)])
    versions, trials = [Version()], Trials()
    versions[0].write(gateway)
    with fleet(folder) as made:
        asking = clients([f"{edge.address}:{LISTENER}" for edge in made.edges], versions, trials)
        found = Run(made, chance, versions, trials, asking)
        found.publish()
        found.converge()
        begin = time.monotonic()
        for one in asking:
            one.start()
        while time.monotonic() < begin + seconds and len(found.violations) < MOST:
            found.round()
        for one in asking:
            one.end()
        return found.report(time.monotonic() - begin)


def _median(values: list[float]) -> float:
    return round(sorted(values)[len(values) // 2], 2)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=1, help="of what is random (default: 1)")
    parser.add_argument("--folder", type=Path, help="keeps logs here")
    arguments = parser.parse_args()
    network.enter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        report = run(folder, arguments.seconds, arguments.seed)
    print(json.dumps(report, indent=2))
    return 1 if report["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
