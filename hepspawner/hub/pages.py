"""What users see of a spawner: the form, the waiting page, the words of a refusal. JupyterHub's own page templates stay
as they are (sites replace them); ours are fragments in them."""

import time
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from jupyterhub import version_info
from jupyterhub.utils import url_path_join
from tornado import web

from ..catalog.packages import Index
from ..catalog.search import parse
from ..catalog.state import State
from ..choice import Offer, split_digest
from ..session import summary
from .cards import Standing, about
from .form import UNREAD, form_context, render_form
from .images import told
from .run import Failure, Run

if TYPE_CHECKING:
    from ..spawner import HEPSpawner

# What the form of the request under way is filled in with: set where JupyterHub reads a form, and read where it draws
# the form again because of an error. It then draws that of the default server, whichever server was asked for.
submitted: ContextVar[Mapping[str, Any] | None] = ContextVar("submitted", default=None)
submitted_to: ContextVar[str | None] = ContextVar("submitted_to", default=None)
refused: ContextVar[Mapping[str, str] | None] = ContextVar("refused", default=None)

NO_SITE = Failure(
    "No server can be started here at the moment: the site file has an error.", "The admins can read it in their form."
)


class Refused(web.HTTPError):
    """A start that is refused or failed, told to form, waiting page and API in the same words."""

    def __init__(self, status: int, failure: Failure, html: str = ""):
        # For the hub's log: one line. JupyterHub 5's API tells nothing else.
        super().__init__(status, failure.message if version_info >= (6,) else failure.text)
        self.jupyterhub_message = failure.text
        if html:
            self.jupyterhub_html_message = html


def static_url(spawner: "HEPSpawner") -> str:
    """Where the hub serves our assets."""
    return url_path_join(spawner.hub.base_url, "hepspawner", "static")


def failed(spawner: "HEPSpawner", status: int, failure: Failure) -> Refused:
    """The error that tells a failed start on JupyterHub's pages."""
    again = url_path_join(spawner.hub.base_url, "spawn", spawner.user.escaped_name, spawner.name)
    html = spawner.runtime.templates.render("failure.html", failure=failure, again=again, static=static_url(spawner))
    return Refused(status, failure, html)


def draw_form(spawner: "HEPSpawner") -> str:
    """The form of a server: filled in as it was sent, by the link that led here, or as the last time."""
    runtime, static = spawner.runtime, static_url(spawner)
    warnings = runtime.warnings() if spawner.user.admin else []
    offer = runtime.offer(spawner.who)
    if offer is None:
        return runtime.templates.render("unavailable.html", failure=NO_SITE, warnings=warnings, static=static)
    options, errors, last = submitted.get(), refused.get(), ""
    server = submitted_to.get()
    server = spawner.name if server is None else server
    notes: dict[str, str] = {}
    link = getattr(spawner.handler, "hepspawner_preset", None)
    if options is None:
        given = link or spawner.orm_spawner.user_options
        options, notes = offer.preset(given)
        if runtime.catalog.incomplete and "image" in notes and not named(offer, given):
            notes["image"] = UNREAD
        last = summary(offer.choose(options), offer.site) if options and not link else ""
    hub = spawner.hub.base_url
    context = form_context(
        offer,
        options=options,
        errors=errors or {},
        notes=notes,
        last=last,
        failure=None if errors else runtime.failures.get((spawner.user.name, server)),
        states={name: standing(state, runtime.packages.index) for name, state in runtime.states(offer).items()},
        warnings=warnings,
        urls={
            "static": static,
            "availability": url_path_join(hub, "api", "hepspawner", "availability"),
            "images": url_path_join(hub, "api", "hepspawner", "images"),
            "preview": url_path_join(hub, "api", "hepspawner", "preview"),
            "spawn": url_path_join(hub, "spawn"),  # a link is for whoever opens it
        },
        server=server,
        ran=told(runtime, spawner.last_image) if spawner.last_image else None,
        query_prefix="opt-",
        incomplete=runtime.catalog.incomplete,
    )
    return render_form(runtime.templates, context)


def named(offer: Offer, options: Any) -> bool:
    """Whether options name an image that is on offer."""
    name = options.get("image") if isinstance(options, Mapping) else None
    return isinstance(name, str) and split_digest(name, offer.images)[0] in offer.images


def standing(state: State, index: Index) -> Standing:
    """How an image stands on its card."""
    known = about(state.digest, state.published or None, time.time())
    return Standing(state.ok, state.text, known, index.knows(state.root), state.real)


def matching(index: Index, offer: Offer, query: str, roots: Mapping[str, str]) -> list[dict[str, Any]]:
    """The images on offer that a search finds: their names and, where packages match, which. `roots`: where they are,
    by name."""
    texts = ((name, roots.get(name, ""), image.text) for name, image in offer.images.items())
    return [{"name": name, "packages": packages} for name, packages in index.search(parse(query), texts).items()]


async def progress_events(spawner: "HEPSpawner", run: Run) -> AsyncIterator[dict[str, Any]]:
    """Events for JupyterHub's waiting page: what was done, what happens, what comes next."""
    last = None
    async for _ in run.changes():
        event = progress_event(spawner, run)
        if event != last:
            yield event
        last = event


def progress_event(spawner: "HEPSpawner", run: Run) -> dict[str, Any]:
    """Where a start is."""
    stages = run.stages()
    now = next((stage for stage in stages if stage.state == "now"), stages[-1])
    done = sum(stage.state == "done" for stage in stages)
    html = spawner.runtime.templates.render(
        "progress.html", stages=stages, summary=run.summary, note="", static=static_url(spawner)
    )
    message = f"{now.title}: {now.detail}" if now.detail else now.title
    return {"progress": 10 + 80 * done // len(stages), "message": message, "html_message": html}
