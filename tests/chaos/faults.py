"""What happens to the fleet: each fault begins, lasts for a while, and ends."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.fleet import Fleet, Part
from tests.chaos.network import Host
from tests.support.versions import replace

TWO = 0.3
"""The share of rounds with two faults at once."""
CLOCK_STEP = 3600
"""The most seconds that a clock is moved to either side."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`touches` is what no other fault may touch meanwhile.

    `loses_counters` is true if counters that are not replicated may be lost while it lasts.
    """

    kind: str
    what: str
    touches: str
    begin: Callable[[], None]
    end: Callable[[], None]
    loses_counters: bool = False


def draw(fleet: Fleet, chance: random.Random) -> list[Fault]:
    """One or two faults by chance, which touch different things."""
    kinds = [_kill, _kill, _kill_child, _pause, _cut, _fill, _clock, _fail_over, _mistake, _nothing]
    first, second = (chance.choice(kinds)(fleet, chance) for _ in range(2))
    return [first, second] if chance.random() < TWO and first.touches != second.touches else [first]


def _nothing(_fleet: Fleet, _chance: random.Random) -> Fault:
    return Fault("none", "nothing", "nothing", _do_nothing, _do_nothing)


def _do_nothing() -> None:
    pass


def _kill(fleet: Fleet, chance: random.Random) -> Fault:
    part = chance.choice([*fleet.parts.values()])
    return Fault("kill", part.name, part.name, part.kill, part.start, part.serves_counters)


def _kill_child(fleet: Fleet, chance: random.Random) -> Fault:
    part = chance.choice([one for name, one in fleet.parts.items() if name.startswith(("policy", "control"))])
    choice = chance.randrange(100)
    return Fault("kill a child", part.name, part.name, lambda: part.kill_child(choice), _do_nothing)


def _pause(fleet: Fleet, chance: random.Random) -> Fault:
    part = chance.choice([*fleet.parts.values()])
    return Fault(
        "pause",
        part.name,
        part.name,
        lambda: part.signal(signal.SIGSTOP),
        lambda: part.signal(signal.SIGCONT),
        part.serves_counters,
    )


def _cut(fleet: Fleet, chance: random.Random) -> Fault:
    """Cut one host from another one, or from all others of a kind."""
    edge, control = chance.choice(fleet.edges), fleet.hosts["control"]
    store = chance.choice(fleet.stores)
    others = [one for one in fleet.stores if one is not store]
    what, host, far = chance.choice(
        [
            ("the control plane from an edge", control, [edge]),
            ("the control plane from all edges", control, fleet.edges),
            ("an edge from all stores", edge, fleet.stores),
            ("an edge from one store", edge, [store]),
            ("a store from the others", store, others),
            ("a store from everything", store, [*others, *fleet.edges]),
            ("an edge from a service", edge, [chance.choice(fleet.named("service"))]),
        ]
    )
    return Fault(
        "cut the network",
        what,
        "network",
        lambda: _each(host.cut, far),
        lambda: _each(host.join, far),
        host in fleet.stores or far[0] in fleet.stores,
    )


def _each(do: Callable[[Host], None], hosts: list[Host]) -> None:
    for one in hosts:
        do(one)


def _fill(fleet: Fleet, chance: random.Random) -> Fault:
    host = chance.choice([fleet.hosts["control"], *fleet.edges, *fleet.stores])
    return Fault(
        "fill a disk", host.name, f"disk of {host.name}", host.fill_disk, host.free_disk, host in fleet.stores
    )


def _clock(fleet: Fleet, chance: random.Random) -> Fault:
    host = chance.choice([*fleet.hosts.values()])
    step, later = (chance.randint(-CLOCK_STEP, CLOCK_STEP) for _ in range(2))
    end = chance.choice([0, later])
    return Fault(
        "move a clock",
        host.name,
        f"clock of {host.name}",
        lambda: host.move_clock(step),
        lambda: host.move_clock(end),
    )


def _fail_over(fleet: Fleet, _chance: random.Random) -> Fault:
    return Fault("fail over", "the counters", "primary", fleet.fail_over, _do_nothing, loses_counters=True)


def _mistake(fleet: Fleet, _chance: random.Random) -> Fault:
    file = fleet.gateway / "mistake.yaml"
    text = "routes:\n  mistake: {path: /mistake, upstrem: service}\n"
    return Fault("a mistake in the YAML", file.name, file.name, lambda: replace(file, text), file.unlink)


def ended(fleet: Fleet) -> list[Part]:
    """The parts that ended although no fault killed them."""
    return [one for one in fleet.parts.values() if one.ended()]
