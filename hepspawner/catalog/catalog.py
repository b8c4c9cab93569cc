"""The catalog: the images of a site, written out and found by its sources, and what is known of each."""

import asyncio
import time
from collections.abc import Callable, Container, Coroutine, Iterable, Mapping
from typing import Any

from ..backends.base import Log
from ..site.model import BackendConfig, Image, Site, Source
from .child import Child, Silent
from .found import make_image, whole_site
from .layouts import is_within, layout_of
from .read import COMMAND
from .repository import Repository, Seen, file_system_of, mount_points, with_digest
from .state import PRESENT, State, clock

_LOOK_INTERVAL = 60.0
_READ_SILENCE = 30.0
_RETRY = 60.0
_LISTS = ("wishlist", "docker_images")


class Following:
    """A source, and the last good list of what it found."""

    def __init__(self, source: Source, log: Log):
        self.source, self.log = source, log
        self.images: list[Image] = []
        self.at = 0.0
        """When it was read well; 0: never."""
        self.problem = ""
        """Why it could not be read the last time."""
        self.left_out: list[str] = []
        """What of it could not be understood."""
        self.read = asyncio.Event()
        """Set once it was read, or could not be."""
        self._stuck: Child | None = None

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.source.kind} {ascii(self.source.place)[1:-1]}"

    @property
    def problems(self) -> list[str]:
        """All that is wrong with it, for admins."""
        kept = f"; its last good list, of {clock(self.at)}, is kept" if self.at else ""
        return [f"{self.name}: {text}" for text in ([self.problem + kept] if self.problem else []) + self.left_out]

    async def refresh(self) -> bool:
        """Read it. Returns whether it lists other images than before."""
        if self._stuck is not None and self._stuck.stuck:
            return False
        images: list[Image] = []
        left_out: list[str] = []
        problem = "the process that reads it ended early, see its limits in docs/catalog.md"
        child = await Child.start(COMMAND, self.source.model_dump(mode="json", by_alias=True, exclude_unset=True))
        try:
            async for line in child.lines(_READ_SILENCE):
                images += [make_image(self.source, own) for own in line.get("images", ())]
                left_out += [line["problem"]] if "problem" in line else []
                problem = line.get("failed", "" if "done" in line else problem)
                await asyncio.sleep(0)  # each line makes many images
        except Silent:
            problem = f"does not answer since {clock(time.time() - _READ_SILENCE)}"
        except (ValueError, ConnectionError):
            pass
        finally:
            await child.close()
            self._stuck = child if child.stuck else None
        if not problem and not images:
            problem = "lists no image that include and exclude let through"
        return self._keep(images, left_out, problem)

    def _keep(self, images: list[Image], left_out: list[str], problem: str) -> bool:
        before = self.problem, self.left_out
        self.problem, self.left_out = problem, left_out
        if (problem, left_out) != before:
            for text in self.problems:
                self.log.warning("Catalog: %s", text)
        self.read.set()
        if not problem:
            self.at = time.time()
        elif self.at:
            return False
        # what a first reading got is better than nothing
        changed = images != self.images
        self.images = images
        return changed

    async def follow(self, on_change: Callable[[], None]) -> None:
        """Read it again and again. One that cannot be read is tried sooner."""
        pause = _RETRY
        while True:
            try:
                if await self.refresh():
                    on_change()
            except OSError as error:  # this machine has no room for another process just now
                self.log.error("Catalog: %s could not be read: %s", self.name, error)
            pause = min(2 * pause, self.source.refresh) if self.problem else _RETRY
            await asyncio.sleep(min(pause, self.source.refresh) if self.problem else self.source.refresh)


class Catalog:
    """Looks after the images of one hub, in the background. What it says is at hand: nothing here waits or blocks."""

    def __init__(self, log: Log, spawn: Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]):
        """`spawn` runs something in the background."""
        self.log, self._spawn = log, spawn
        self.site: Site | None = None
        """The site as its catalog has it: in the place of each source the images that it found."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when there are other images, or something new is known of one."""
        self._written: Site | None = None
        self._following: list[Following] = []
        self._repositories: dict[str, Repository] = {}
        self._tasks: dict[Any, asyncio.Task[Any]] = {}
        self._told: dict[str, State] = {}
        self._told_digests: dict[str, tuple[str, ...]] = {}
        self._by_name: dict[str, Image] = {}
        self._where: dict[str, Repository] = {}
        self._listed: set[str] = set()
        self._roots: dict[str, str] | None = None
        """Kept until something changes."""

    @property
    def images(self) -> list[Image]:
        """All images, in the site's order: written out, and found."""
        return self.site.images if self.site else []

    @property
    def problems(self) -> list[str]:
        """What is wrong with sources, and which file systems do not answer, for admins."""
        silent = [f"{one.root}: {one.silence()}" for one in self._repositories.values() if one.breaker.since]
        return [text for one in self._following for text in one.problems] + silent

    def follow(self, site: Site) -> None:
        """Have another site from now on. What is known of the same images and sources is kept."""
        self._written = site
        old = list(self._following)
        self._following = []
        for source in site.sources:
            same = next((one for one in old if one.source == source), None)
            if same is not None:
                old.remove(same)
            else:
                same = Following(source, self.log)
                self._tasks[same] = self._spawn(same.follow(self._compose))
            self._following.append(same)
        for gone in old:
            self._tasks.pop(gone).cancel()
        self._compose()

    async def settled(self) -> None:
        """Wait until each source has been read once, or could not be."""
        for one in self._following:
            await one.read.wait()

    @property
    def incomplete(self) -> bool:
        """Whether there is a source that could not be read since the hub began: what it lists cannot be told."""
        return any(not one.at for one in self._following)

    def _compose(self) -> None:
        assert self._written is not None
        self.site = whole_site(self._written, [one.images for one in self._following])
        self._by_name = {image.name: image for image in self.site.images}
        self._told = {name: told for name, told in self._told.items() if name in self._by_name}
        self._told_digests = {name: them for name, them in self._told_digests.items() if name in self._by_name}
        lists = (one.images for one in self._following if one.source.kind in _LISTS)
        self._listed = {path for images in lists for image in images for path in image.path}
        self._arrange()
        self._news()

    def _news(self) -> None:
        self._roots = None
        self.on_change()

    def _arrange(self) -> None:
        """Have each file system looked after that has images the hub looks at."""
        mounts = mount_points()
        wanted: dict[str, list[str]] = {}
        self._where = {}
        backends = self.site.backends if self.site else {}
        looking = {name for name, config in backends.items() if config.probe == "hub"}
        known: dict[str, str] = {}  # by parent: thousands share one
        for image in self.images:
            if looking if image.backends is None else not looking.isdisjoint(image.backends):
                for path in image.places:
                    parent = path.rpartition("/")[0]
                    root = known.get(parent) or known.setdefault(parent, file_system_of(path, mounts))
                    wanted.setdefault(root, []).append(path)
        for root in set(self._repositories) - set(wanted):
            self._tasks.pop(root).cancel()
            del self._repositories[root]
        for root, paths in wanted.items():
            new = root not in self._repositories
            one = self._repositories.setdefault(root, Repository(root, self.log))
            one.on_change = self._news
            one.want(paths)
            self._where.update(dict.fromkeys(paths, one))
            if new:
                self._tasks[root] = self._spawn(one.follow(_LOOK_INTERVAL))

    # --- what is known

    def state(self, image: Image, backends: Iterable[BackendConfig]) -> State:
        """What is known of an image, for somebody who would run it on one of some backends.

        Of its places the first that is present, else the first that cannot be told, else the first.
        """
        looks = {config.probe for config in backends}
        states = [self._at(path) for path in image.places] if "hub" in looks else []
        best = next((one for one in states if one.kind in PRESENT), None)
        if best is None and looks & {"node", "none"}:
            place = next(iter(image.places), "")
            best = self._told.get(image.name) or State("on the node" if "node" in looks else "not looked at", place)
        best = best or next((one for one in states if one.ok), None)
        return best or (states[0] if states else State("not looked at"))

    def _at(self, path: str) -> State:
        repository = self._where.get(path)
        seen = repository.seen.get(path, Seen()) if repository else Seen()
        fact = seen.fact
        if fact is None and not seen.silent:
            return State("not looked at", path)
        kind, since, why = (fact.kind, seen.since, fact.why) if fact else ("", 0.0, "")
        if seen.silent:
            kind, since, why = "no answer", seen.silent, seen.why
        elif kind == "missing" and not seen.absent:
            kind = "vanished" if seen.was_present else "not yet published" if path in self._listed else kind
        if fact is None:
            return State(kind, path, since=since, why=why)
        return State(kind, path, fact.real, fact.digest, fact.published, fact.size, since, seen.at, why)

    def told(self, name: str, path: str, why: str = "", real: str = "") -> None:
        """A node says of an image: it is at a path (and really at another), or why it cannot be used there.

        That is the word of a user's launcher: it may not lead others to another repository.
        """
        real = real if is_within(path, real) else ""
        digest = layout_of(path, real).digest
        now, before = time.time(), self._told.get(name)
        why = f"a node said at {clock(now)}: {why}" if why else ""
        same = before is not None and bool(before.why) == bool(why)
        since = before.since if before and same else now
        if name in self._by_name:
            self._told[name] = State("on the node", path, real, digest, since=since, at=now, why=why)
            self._told_digests[name] = with_digest(self._told_digests.get(name, ()), digest)
            self.on_change()

    def knows(self, image: Image, digest: str, ran: bool, offered: Container[str]) -> bool:
        """Whether an image is known to be, or to have been, what a digest names, so that it may be started by that.

        What the hub saw behind the image's places since it began counts. What nodes told of it, and that the user's own
        server `ran` from it, is the word of users' launchers: not where the digest is one of another image, and that
        is not among the `offered` ones.
        """
        if digest in self._seen_digests(image):
            return True
        others = (one for one in self.images if one.name not in offered)
        if any(digest in (*self._seen_digests(one), *self._told_digests.get(one.name, ())) for one in others):
            return False
        return ran or digest in self._told_digests.get(image.name, ())

    def _seen_digests(self, image: Image) -> set[str]:
        seen = (self._where[path].seen.get(path) for path in image.places if path in self._where)
        return {digest for one in seen if one for digest in one.digests}

    def leads_to(self, path: str) -> str:
        """What a place of an image leads to with its links resolved, as it was seen or a node told last; empty where
        that is not known."""
        seen = self._at(path)
        if seen.kind in PRESENT:
            return seen.real
        return next((one.real for one in self._told.values() if one.path == path and not one.why), "")

    def roots(self) -> Mapping[str, str]:
        """Where images really are, as far as the hub sees it, by name: what a search asks for at each keystroke."""
        if self._roots is None:
            self._roots = {image.name: root for image in self.images if (root := self._root(image))}
        return self._roots

    def _root(self, image: Image) -> str:
        there = []
        for path in image.places:
            repository = self._where.get(path)
            seen = repository.seen.get(path) if repository else None
            if seen is not None and seen.fact is not None and seen.fact.kind in PRESENT:
                there.append((bool(seen.silent), seen.fact.real))
        return min(there, key=lambda one: one[0])[1] if there else ""

    def directories(self) -> list[str]:
        """Where images really lie that have files to be read. A SIF's would have to be mounted for that."""
        seen = (one.fact for repository in self._repositories.values() for one in repository.seen.values())
        return list(dict.fromkeys(fact.real for fact in seen if fact and fact.kind in ("sandbox", "prefix")))

    async def look(self, image: Image) -> None:
        """Look at an image now, for a start: what was not present a minute ago may be by now."""
        by_repository: dict[str, list[str]] = {}
        for path in image.places:
            if path in self._where:
                by_repository.setdefault(self._where[path].root, []).append(path)
        await asyncio.gather(*(self._repositories[root].look(paths) for root, paths in by_repository.items()))

    async def stock(self) -> None:
        """Wait until all sources have been read and all images been looked at once, as far as anything answers."""
        await self.settled()
        await asyncio.gather(*(one.look(one.unseen()) for one in self._repositories.values()))
