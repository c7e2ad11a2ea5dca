"""How a composer is made for the life that it shares with the policy server: rules, health, workers and drain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry

from filters.rules import Service
from xds_server.composer.answer_memory import AnswerMemory
from xds_server.composer.service import Composer, ComposerServer
from xds_server.policy_server.lifecycle import Make, Role, Serving
from xds_server.translate.composer_entry import NODE_CLUSTER, SERVICE

ROLE = Role(name=SERVICE, cluster=NODE_CLUSTER, command="xds composer", freezes=False)


def made_by(calls: str, most_answers: int) -> tuple[Make, Callable[[Sequence[Service], object], Serving]]:
    """Return what makes the service and the server of one process, whose calls go to the address `calls`.

    `most_answers` are the bytes of answers that it keeps (xds_server.composer.answer_memory).
    """
    made: list[Composer] = []

    def make(registry: CollectorRegistry) -> Service:
        made.append(Composer(calls, registry, memory=AnswerMemory(most_answers)))
        return made[-1].service()

    def server(services: Sequence[Service], _kind: object) -> Serving:
        return ComposerServer(made[-1], services)

    return make, server
