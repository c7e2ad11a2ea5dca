"""Pages for everybody: the catalogue, APIs with their references, products, and docs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from starlette.responses import Response

from xds_server.catalog.entries import Entry, Page
from xds_server.catalog.samples import samples
from xds_server.marketplace import applications, notices, people, products, subscriptions
from xds_server.marketplace.actor import not_found
from xds_server.marketplace.pages import Wanted, every
from xds_server.portal.generated_clients import GeneratedClients, can_be_made
from xds_server.portal.pages.markdown import without_title
from xds_server.portal.pages.visits import Visit, see

_SHOWN = 200
"""APIs on the first page; the search finds all."""


def visible(visit: Visit) -> Callable[[Entry], bool]:
    """Return a function that says whether the actor may see an API."""
    if visit.actor.publishes:
        return lambda _entry: True
    with visit.marketplace.read(visit.actor) as now:
        own = (
            {one.slug for one in every(lambda wanted: people.organisations(now, wanted, own=True))}
            if visit.actor.user
            else set()
        )
    return lambda entry: entry.visibility.public or any(map(entry.visibility.allows, own))


def catalogue(visit: Visit) -> Response:
    """The first page: the APIs, or those that a search finds."""
    sees = visible(visit)
    wanted, tag = visit.query.get("q", "").strip()[:200], visit.query.get("tag", "")

    def listed(entry: Entry) -> bool:
        return entry.lifecycle != "retired" and sees(entry)

    found = [one for one in visit.gateway.entries.values() if listed(one)]
    tags = sorted({one for entry in found for one in entry.tags})
    if wanted:
        found = [one.entry for one in visit.gateway.search(wanted, listed)]
    else:
        found.sort(key=lambda one: (one.title.casefold(), one.name))
    shown = [one for one in found if not tag or tag in one.tags]
    with visit.marketplace.read(visit.actor) as now:
        news = notices.notices(now, Wanted(None, 5)).items if not (wanted or tag) else []
    return visit.page(
        "catalogue.html",
        shown=shown[:_SHOWN],
        more=len(shown) - _SHOWN,
        q=wanted,
        tag=tag,
        tags=tags,
        notices=news,
    )


def missing(visit: Visit) -> Response:
    """The page for an address at which there is nothing. Raises NotFound."""
    raise not_found("page")


def _entry(visit: Visit) -> Entry:
    found = visit.gateway.entries.get(visit.path["api"])
    if found is None or not visible(visit)(found):
        raise not_found("API")
    return found


class ApiPages:
    """The pages of APIs, with their clients for downloads."""

    def __init__(self, clients: GeneratedClients) -> None:
        self._clients = clients

    def page(self, visit: Visit) -> Response:
        """The page of an API."""
        entry = _entry(visit)
        reference = visit.gateway.reference(entry.name)
        operations = reference.operations if reference is not None else ()
        with visit.marketplace.read(visit.actor) as now:
            sold = every(lambda wanted: products.products(now, wanted, published=True, api=entry.name))
        return visit.page(
            "api.html",
            entry=entry,
            reference=reference,
            samples={
                one.id: samples(one, reference, entry.base_url, entry.credential)
                for one in operations
                if reference is not None
            },
            clients=self._clients.generators if _has_clients(entry) else {},
            products=sold,
            gateway=visit.gateway.portal.gateway or "",
        )

    def client(self, visit: Visit) -> Response:
        """The client of an API in a language, as a ZIP file."""
        entry, language = _entry(visit), visit.path["language"]
        if entry.document is None or not _has_clients(entry) or language not in self._clients.generators:
            raise not_found("client")
        headers = {
            "content-disposition": f'attachment; filename="{language}-client.zip"',
            "cache-control": "no-store",
        }
        content = self._clients.zipped(language, entry.name, entry.document)
        return Response(content, media_type="application/zip", headers=headers)


def _has_clients(entry: Entry) -> bool:
    return entry.document is not None and can_be_made(entry.document)


def document(visit: Visit) -> Response:
    """The document of an API as it is in the gateway's folder."""
    entry = _entry(visit)
    if entry.document is None:
        raise not_found("document")
    headers = {
        "content-disposition": f'attachment; filename="{entry.document.name}"',
        "cache-control": "no-store",
    }
    return Response(entry.document.content, media_type="application/octet-stream", headers=headers)


def guide(visit: Visit) -> Response:
    """A guide of an API."""
    entry = _entry(visit)
    return _page(visit, entry.pages, f"/apis/{entry.name}")


def docs(visit: Visit) -> Response:
    """The pages of the portal."""
    if "page" not in visit.path:
        return visit.page("docs.html", pages=visit.gateway.pages)
    return _page(visit, visit.gateway.pages, "/docs")


def _page(visit: Visit, pages: tuple[Page, ...], back: str) -> Response:
    found = next((one for one in pages if one.slug == visit.path["page"]), None)
    if found is None:
        raise not_found("page")
    return visit.page("page.html", title=found.title, text=without_title(found.text, found.title), back=back)


def all_products(visit: Visit) -> Response:
    """The products."""
    with visit.marketplace.read(visit.actor) as now:
        found = products.products(now, visit.wanted, published=True)
    return visit.page("products.html", products=found.items, next=found.next)


def product(visit: Visit) -> Response:
    """A product with its plans, and the form to subscribe."""
    with visit.marketplace.read(visit.actor) as now:
        found = products.product(now, visit.path["product"])
        mine = every(lambda wanted: applications.applications(now, None, wanted, own=True))
    sees = visible(visit)
    apis = [visit.gateway.entries[one] for one in found.apis if one in visit.gateway.entries]
    plans = [{"plan": one, "limits": list(limits(visit, one.plan))} for one in found.plans]
    return visit.page(
        "product.html", product=found, plans=plans, apis=[one for one in apis if sees(one)], applications=mine
    )


def limits(visit: Visit, plan: str) -> Iterator[str]:
    """Yield the limits of a plan in the language of the visit."""
    found = visit.gateway.plans.get(plan)
    if found is None:
        return
    written = found.rate_limit if isinstance(found.rate_limit, tuple) else (found.rate_limit,)
    for one in written:
        if one is not None:
            unit = visit.text(str(one.per))
            yield visit.text("{number} requests per {unit}").format(number=f"{one.requests:,}", unit=unit)
    if found.concurrency is not None:
        yield visit.text("{number} at the same time").format(number=f"{found.concurrency:,}")


def subscribe(visit: Visit) -> Response:
    """Subscribe an application."""
    form = visit.form
    with visit.marketplace.begin(visit.actor) as now:
        made = subscriptions.subscribe(
            now,
            form.get("application", ""),
            visit.path["product"],
            form.get("plan", ""),
            taken=visit.gateway.consumers,
            accepts_terms=form.get("accepts_terms") == "yes",
        )
    return see(f"/applications/{made.application}#{made.id}")
