"""A marketplace with an organisation, and people of every role."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from xds_server.marketplace import applications, people, products, subscriptions
from xds_server.marketplace.actor import COMMAND, Actor
from xds_server.marketplace.products import Offered
from xds_server.marketplace.records import Application, NewKey, Organisation, Product, Subscription
from xds_server.marketplace.store import Marketplace

OFFERED = Offered(apis=("orders", "payments"), plans=("free", "gold", "old"))
COMMERCE: dict[str, Any] = {
    "slug": "commerce",
    "title": "Commerce",
    "apis": ["orders"],
    "plans": [{"plan": "free"}, {"plan": "gold", "approval": "manual"}],
}


@dataclass
class Clock:
    """A clock that stands still, in Unix seconds."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Market:
    """A store with people: `ada` owns the organisation acme, `bob` is a member, and `eve` owns another one."""

    def __init__(self, store: Marketplace, clock: Clock) -> None:
        self.store, self.clock = store, clock
        with store.begin(COMMAND) as now:
            users = {
                name: people.add_user(now, f"{name}@example.com", name.title(), role)
                for name, role in (
                    ("ada", "developer"),
                    ("bob", "developer"),
                    ("eve", "developer"),
                    ("pub", "publisher"),
                    ("adm", "admin"),
                )
            }
        self.users = users
        self.acme = self._organisation("ada", "Acme")
        self.other = self._organisation("eve", "Other")
        with store.begin(COMMAND) as now:
            people.set_member(now, self.acme.id, users["bob"].id, "member")

    def _organisation(self, owner: str, name: str) -> Organisation:
        with self.store.begin(self.actor(owner)) as now:
            return people.add_organisation(now, name)

    def actor(self, name: str) -> Actor:
        """Return a person with the organisations of now."""
        with self.store.read(COMMAND) as now:
            return people.actor_of(now, people.user(now, self.users[name].id))

    def product(self, *, publish: bool = True, **values: Any) -> Product:
        """Add a product, and publish it."""
        with self.store.begin(self.actor("pub")) as now:
            made = products.add_product(now, {**COMMERCE, **values}, OFFERED)
            return products.change_product(now, made.id, {}, OFFERED, state="published") if publish else made

    def application(self, name: str = "Mobile", *, by: str = "ada") -> Application:
        """Add an application of acme."""
        with self.store.begin(self.actor(by)) as now:
            return applications.add_application(now, self.acme.id, name)

    def subscribe(
        self, application: Application, product: Product, plan: str = "free", **more: Any
    ) -> Subscription:
        """Subscribe as ada."""
        with self.store.begin(self.actor("ada")) as now:
            return subscriptions.subscribe(now, application.id, product.id, plan, **more)

    def key(self, subscription: Subscription, slot: str = "primary", **more: Any) -> NewKey:
        """Make a key as ada."""
        with self.store.begin(self.actor("ada")) as now:
            return subscriptions.make_key(now, subscription.id, slot, **more)


def nobody_of(actor: Actor) -> Actor:
    """Return the actor without organisations."""
    return replace(actor, organisations={})
