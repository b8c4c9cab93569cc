"""One per hub: the site, its backends, the runs under way, and what all spawners share."""

import asyncio
import hashlib
import sys
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from jupyterhub import orm
from sqlalchemy import Text, cast

from ..backends import backend_class
from ..backends.base import Backend, BackendError, Log, Tag
from ..catalog.packages import Packages
from ..catalog.probe import Fact, look
from ..choice import Choice, Offer, Who
from ..site.live import LiveSite
from ..site.model import BackendConfig, Image, Site
from ..templates import Templates
from .run import Failure, Run
from .tickets import Tickets
from .watch import Watch

if TYPE_CHECKING:
    from jupyterhub.app import JupyterHub

_PROBE_INTERVAL = 60.0
_PROBE_DEADLINE = 20.0
_START_DEADLINE = 10.0


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
        self.facts: dict[str, Fact] = {}
        self.packages = Packages(log)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._probe_now = asyncio.Event()
        self.live = LiveSite(source, log)
        self.live.on_change = self._apply
        self.live.load()
        for problem in self.templates.check():
            log.error("Templates: %s; the built-in one is used instead", problem)
        self.spawn(self.live.follow())
        self.spawn(self._probe())

    @property
    def site(self) -> Site | None:
        """The last good site."""
        return self.live.site

    @property
    def queues(self) -> bool:
        """Whether jobs may wait for hours on some backend."""
        return any(backend.queues for backend in self.backends.values())

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
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

    def warnings(self) -> list[str]:
        """What an admin should know, for his form."""
        return [f"The site file has an error: {problem}" for problem in self.live.problems] + self.templates.problems

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
        self._probe_now.set()

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

    async def _probe(self) -> None:
        """Look at all images again and again, so that the form can tell at once what is not there."""
        while True:
            self._probe_now.clear()
            if self.site is not None:
                paths = list(dict.fromkeys(path for image in self.site.images for path in image.places))
                self.facts = await look(paths, _PROBE_DEADLINE)
                self.spawn(self.packages.follow(self._directories()))
            try:
                await asyncio.wait_for(self._probe_now.wait(), _PROBE_INTERVAL)
            except asyncio.TimeoutError:
                pass

    def _directories(self) -> list[str]:
        """Where images lie that have files to be read; a SIF's would have to be mounted for that."""
        return list(dict.fromkeys(fact.real for fact in self.facts.values() if fact.kind in ("sandbox", "prefix")))

    def state(self, image: Image, backends: Iterable[BackendConfig]) -> Fact:
        """What is known of an image on some backends: of its places the first that is good, else the first."""
        if any(config.probe == "node" for config in backends):
            return Fact("on the node")
        facts = [self.facts.get(path, Fact("no answer")) for path in image.places]
        return next((fact for fact in facts if fact.ok), facts[0]) if facts else Fact("no answer")

    async def locate(self, choice: Choice, offer: Offer) -> tuple[str | None, str]:
        """Where the image of a choice is, and what speaks against it in words (empty: nothing).

        What was seen well within the last minute is believed; everything else is looked at, with a deadline: where
        nothing answers, the node will tell.
        """
        if choice.custom_image:
            return await self._locate_custom(choice, offer)
        image = offer.images[str(choice.image)]
        if self.backend(choice.backend).config.probe == "node":
            return next(iter(image.places), None), ""
        for path in image.places:
            if self.facts.get(path, Fact("missing")).kind in ("sandbox", "sif", "prefix"):
                return path, ""
        facts = await look(image.places, _START_DEADLINE)
        self.facts.update(facts)
        for path, fact in facts.items():
            if fact.ok:
                return path, ""
        first = image.places[0] if image.places else ""
        return None, f"{image.name}: {first} {facts[first].text}" if first else ""

    async def _locate_custom(self, choice: Choice, offer: Offer) -> tuple[str, str]:
        path = str(choice.custom_image)
        backend = self.backend(choice.backend)
        if backend.config.probe == "node":
            return path, ""
        roots = [root for root, _ in offer.custom_roots if root]
        facts = await look([path, *roots], _START_DEADLINE, await backend.look_as(offer.who.name))
        fact = facts[path]
        if not fact.ok or fact.kind == "prefix":
            return path, f"{path!r} {fact.text or 'is not an image'}"
        if fact.real and not offer.allows(fact.real, {root: facts[root].real or root for root in roots}):
            return path, f"{path!r} leads out of what is allowed; allowed: {', '.join(offer.custom)}"
        return fact.real or path, ""


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
