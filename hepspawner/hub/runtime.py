"""One per hub: the site, its backends, the runs under way, and what all spawners share."""

import asyncio
import hashlib
import sys
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from jupyterhub import orm
from sqlalchemy import Text, cast

from ..backends import backend_class
from ..backends.base import Backend, BackendError, Log, Tag
from ..catalog.catalog import Catalog
from ..catalog.layouts import Layout, layout_of
from ..catalog.packages import Packages
from ..catalog.references import is_reference
from ..catalog.state import State
from ..choice import Offer, Who
from ..site.live import LiveSite
from ..site.model import Image, Site
from ..templates import Templates
from .run import Failure, Run
from .tickets import Tickets
from .watch import Watch

if TYPE_CHECKING:
    from jupyterhub.app import JupyterHub


_PACKAGES_INTERVAL = 60.0


class Runtime:
    """What is one for the whole hub. Spawners find it in the hub's settings."""

    def __init__(
        self, source: Any, template_paths: list[str], secret: bytes, log: Log, in_database: Callable[[str], bool]
    ):
        """`in_database`: whether JupyterHub's database knows of a server with a session."""
        self.log = log
        self._in_database = in_database
        self.watch = Watch(self)
        self.tickets = Tickets(secret)
        self.hub_id = hashlib.sha256(b"hepspawner hub" + secret).hexdigest()[:12]
        """Tells this hub's jobs from another's; stays the same over restarts."""
        self.templates = Templates(template_paths, log)
        self.runs: dict[str, Run] = {}
        self.failures: dict[tuple[str, str], Failure] = {}
        """Of the last attempt of each user and server, for the form."""
        self.backends: dict[str, Backend] = {}
        self.packages = Packages(log)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.catalog = Catalog(log, self.spawn)
        self._catalog_changed = asyncio.Event()
        self.catalog.on_change = self._catalog_changed.set
        self.live = LiveSite(source, log)
        self.live.on_change = self._apply
        self.live.load()
        for problem in self.templates.check():
            log.error("Templates: %s; the built-in one is used instead", problem)
        self.spawn(self.live.follow())
        self.spawn(self._read_packages())

    @property
    def site(self) -> Site | None:
        """The last good site, with the images that its sources found."""
        return self.catalog.site

    @property
    def queues(self) -> bool:
        """Whether jobs may wait for hours on some backend."""
        return any(backend.queues for backend in self.backends.values())

    @property
    def pulls(self) -> bool:
        """Whether users may bring images that are pulled from registries."""
        policy = self.site.custom_images if self.site else None
        return policy is not None and any(is_reference(glob) for glob in policy.allow)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run something in the background; an error in it is logged, not lost."""

        async def guarded() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except Exception:
                self.log.exception("hepspawner: a background task failed")

        task = asyncio.ensure_future(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def warnings(self) -> list[str]:
        """What an admin should know, for his form."""
        site = [f"The site file has an error: {problem}" for problem in self.live.problems]
        return site + self.templates.problems + self.catalog.problems

    def offer(self, who: Who) -> Offer | None:
        """What the site offers to a user; None where no site could be read yet."""
        if self.site is None:
            return None
        return Offer(self.site, who, {name: self.backends[name].fields(who) for name in self.site.backends})

    def backend(self, name: str) -> Backend:
        """A backend of the site, or one that the site dropped while it had servers. Raises BackendError."""
        try:
            return self.backends[name]
        except KeyError:
            raise BackendError(f"the site has no backend {name} any more") from None

    def _apply(self, site: Site) -> None:
        for name, config in site.backends.items():
            old = self.backends.get(name)
            if old is not None and old.config == config:
                continue
            backend = backend_class(config.type)(name, config, self.log, self.templates)
            backend.hub, backend.owned = self.hub_id, self.owned
            backend.on_change = self.watch.changed
            backend.open()
            self.backends[name] = backend
            if old is not None:
                self.spawn(old.close())
        in_use = {run.backend for run in self.runs.values()}
        for name in set(self.backends) - set(site.backends) - in_use:
            self.spawn(self.backends.pop(name).close())
        self.catalog.follow(site)

    def owned(self, tag: Tag) -> bool:
        """Whether a server hangs on the job of a tag: one of this process, or of one that it has not taken up yet."""
        run = self.runs.get(tag.session)
        return (run is not None and not run.ended) or self._in_database(tag.session)

    def add(self, run: Run) -> None:
        """Make a run known to claims and reports."""
        self.runs[run.tag.session] = run

    def drop(self, run: Run) -> None:
        """Forget a run: its ticket and its key are worth nothing from now on."""
        self.runs.pop(run.tag.session, None)
        backend = self.backends.get(run.backend)
        if backend is not None and run.job is not None:
            self.spawn(backend.forget(run.job, run.tag))

    def tag(self, user: str, server: str, session: str) -> Tag:
        """The mark of a session's job."""
        return Tag(self.hub_id, user, server, session)

    def states(self, offer: Offer) -> dict[str, State]:
        """What is known of each image of an offer."""
        return {name: self.state(image, offer) for name, image in offer.images.items()}

    def state(self, image: Image, offer: Offer) -> State:
        """What is known of an image, for whom the offer is made to."""
        return self.catalog.state(image, offer.backends_of(image).values())

    async def _read_packages(self) -> None:
        """Have the packages of all images read that are in sight; those that could not be are tried again."""
        while True:
            self._catalog_changed.clear()
            try:
                await self.packages.follow(self.catalog.directories())
            except OSError as error:  # this machine has no room for another process just now
                self.log.error("hepspawner: packages could not be read: %s", error)
            try:
                await asyncio.wait_for(self._catalog_changed.wait(), _PACKAGES_INTERVAL)
            except asyncio.TimeoutError:
                pass

    def newer(self, image: Mapping[str, str]) -> Layout | None:
        """What the tag of a running image leads to by now, where that is known to be another than what runs."""
        tag = image.get("tag", "")
        real = self.catalog.leads_to(tag)
        return layout_of(tag, real) if real and real != image["real"] else None


def install(app: "JupyterHub", spawner_class: Any) -> Runtime:
    """Give a hub its runtime and our handlers. Called while it starts, or else by the first spawner."""
    from .handlers import handlers

    settings: dict[str, Any] = app.tornado_settings
    if "hepspawner" in settings:
        runtime: Runtime = settings["hepspawner"]
        return runtime
    configured = spawner_class(config=app.config)
    source = configured.site if isinstance(configured.site, dict) else str(configured.site)
    runtime = settings["hepspawner"] = Runtime(
        source, list(configured.template_paths), bytes(app.cookie_secret), app.log, partial(_known_session, app)
    )
    ours = app.add_url_prefix(app.hub_prefix, handlers())
    if getattr(app, "tornado_application", None):
        app.tornado_application.settings["hepspawner"] = runtime
        app.tornado_application.add_handlers(".*", ours)
    else:
        app.handlers = [*ours, *app.handlers]
    return runtime


def _known_session(app: "JupyterHub", session: str) -> bool:
    state = cast(orm.Spawner.state, Text)
    return app.db.query(orm.Spawner.id).filter(state.contains(session, autoescape=True)).first() is not None


def install_at_start(spawner_class: Any) -> None:
    """Have the hub that reads its configuration just now give us our turn as soon as it makes its routes.

    Then a site with an error is told at the start of the hub, not by the first user's form, and launchers find their
    routes. Nothing happens in a hub whose spawner is another.
    """
    module = sys.modules.get("jupyterhub.app")
    if module is None or not module.JupyterHub.initialized():
        return
    app = module.JupyterHub.instance()

    def routes_made(change: Any) -> None:  # more than once, where the configuration imports the class, too
        if issubclass(app.spawner_class, spawner_class):
            install(app, app.spawner_class)

    app.observe(routes_made, "handlers")
