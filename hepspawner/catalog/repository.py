"""Looking after the paths of one file system, such as a repository of CVMFS, without ever waiting for it in the hub."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..backends.base import Log
from . import probe
from .child import Child, Silent
from .probe import Fact
from .state import PRESENT, silence

SILENCE = 20.0
"""Seconds without an answer after which a file system counts as one that does not answer."""
_PAUSE = 60.0
_LONGEST_PAUSE = 600.0
_ABSENT_PAUSE = 600.0
_LONGEST_ABSENT_PAUSE = 3600.0
_MOST_STUCK = 3
_DIGESTS = 20


def file_system_of(path: str, mounts: Iterable[str]) -> str:
    """What hangs together with a path: its repository on CVMFS (before autofs has mounted it, too), else its mount."""
    parts = path.split("/")
    if parts[1] == "cvmfs" and len(parts) > 3:
        return "/".join(parts[:3])
    return max((one for one in mounts if path.startswith(one.rstrip("/") + "/")), key=len, default="/")


def mount_points() -> list[str]:
    """Where this machine has file systems mounted. The kernel tells, without asking any of them."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        fields = [line.split(" ")[4] for line in file]
    return [one.replace("\\040", " ") for one in fields]


class Breaker:
    """Whether a file system is asked: one that does not answer, or is not there, is left alone for ever longer."""

    def __init__(self) -> None:
        self.since = 0.0
        """Since when it has not answered; 0: it does."""
        self.again = 0.0
        """When it may be asked again."""
        self._pause = 0.0

    def answered(self) -> None:
        """It is well."""
        self.since = self.again = self._pause = 0.0

    def failed(self, now: float) -> None:
        """It did not answer."""
        self.since = self.since or now
        self._wait(now, _PAUSE, _LONGEST_PAUSE)

    def absent(self, now: float) -> None:
        """It is not there."""
        self.since = 0.0
        self._wait(now, _ABSENT_PAUSE, _LONGEST_ABSENT_PAUSE)

    def _wait(self, now: float, first: float, longest: float) -> None:
        self._pause = min(max(2 * self._pause, first), longest)
        self.again = now + self._pause


@dataclass
class Seen:
    """What is known of a path."""

    fact: Fact | None = None
    """The last answer; None: there was none yet."""
    at: float = 0
    since: float = 0
    """When what `fact` says began."""
    silent: float = 0
    """Since when there has been no answer; 0: the last question was answered."""
    why: str = ""
    """What came instead of an answer."""
    was_present: bool = False
    absent: bool = False
    """Whether its whole repository is missing."""
    digests: tuple[str, ...] = ()
    """The last ones that it led to, since the hub began."""

    def take(self, fact: Fact, now: float, absent: bool = False) -> bool:
        """Keep an answer; True where it says something new."""
        before = (self.fact and self.fact.kind, self.fact and self.fact.real, self.silent, self.absent)
        if fact.kind == "no answer":
            self.silent, self.why = self.silent or now, fact.why
        else:
            if self.fact is None or self.fact.kind != fact.kind:
                self.since = now
            self.fact, self.at, self.silent, self.why, self.absent = fact, now, 0, "", absent
            self.was_present |= fact.kind in PRESENT
            self.digests = with_digest(self.digests, fact.digest)
        return before != (self.fact and self.fact.kind, self.fact and self.fact.real, self.silent, self.absent)


def with_digest(known: tuple[str, ...], digest: str) -> tuple[str, ...]:
    """The digests of an image, with one more; the oldest go."""
    return (*known, digest)[-_DIGESTS:] if digest and digest not in known else known


@dataclass
class Repository:
    """One file system, and what is known of the paths in it."""

    root: str
    log: Log
    on_change: Callable[[], None] = lambda: None
    breaker: Breaker = field(default_factory=Breaker)
    seen: dict[str, Seen] = field(default_factory=dict)
    """By path: all that are wanted."""
    _stuck: list[Child] = field(default_factory=list)
    _suspects: set[str] = field(default_factory=set)
    """Paths at which a child fell silent: they go last, so that they keep no answers from others."""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def want(self, paths: Iterable[str]) -> None:
        """From now on these are its paths. What is known of them stays known."""
        self.seen = {path: self.seen.get(path) or Seen() for path in paths}
        self._wake.set()

    @property
    def left_alone(self) -> bool:
        """Whether it is not to be asked just now."""
        self._stuck = [child for child in self._stuck if child.stuck]
        return time.time() < self.breaker.again or len(self._stuck) >= _MOST_STUCK

    def unseen(self) -> list[str]:
        """Those of its paths that have not been looked at yet."""
        return [path for path, seen in self.seen.items() if seen.fact is None and not seen.silent]

    async def look(self, paths: Iterable[str] | None = None) -> None:
        """Ask once about all of its paths, or some. Returns at the latest when it is silent for too long."""
        async with self._lock:
            if self.left_alone:
                return
            wanted = [path for path in (self.seen if paths is None else paths) if path in self.seen]
            wanted.sort(key=lambda path: path in self._suspects)
            if wanted and await self._ask(wanted):
                self.on_change()

    async def _ask(self, paths: list[str]) -> bool:
        """Returns whether something new was learnt."""
        news, good, left = False, False, dict.fromkeys(paths)
        on_cvmfs = self.root.startswith("/cvmfs/")
        child = await probe.start([(path, self._mark(path)) for path in paths], self.root if on_cvmfs else None)
        why = ""
        try:
            async for index, fact in probe.told(child, SILENCE):
                if index < 0:
                    return self._is_absent()
                known = self.seen.get(paths[index], Seen())
                left.pop(paths[index], None)
                if fact is None:
                    fact = known.fact
                elif fact.why and fact.why != (known.fact.why if known.fact else "") and fact.kind in PRESENT:
                    self.log.warning("Catalog: %s: %s", ascii(paths[index])[1:-1], fact.why)
                if fact is not None:
                    news |= known.take(fact, time.time())
                    good |= fact.kind != "no answer"
                    why = why or fact.why
        except Silent:
            self._suspects |= set(list(left)[:1])
            why = ""
        except (ValueError, ConnectionError):
            pass  # a child that was killed, say
        finally:
            await child.close()
            if child.stuck:
                self._stuck.append(child)
                self._wake.set()  # `follow` waits for its end
        if left or not good:
            self._failed(why)
            return self._silence(left, why) or news
        self._suspects.clear()
        self._answers()
        return news

    def _silence(self, paths: Iterable[str], why: str) -> bool:
        silent, news = Fact("no answer", why=why), False
        for path in paths:
            if path in self.seen:
                news |= self.seen[path].take(silent, self.breaker.since)
        return news

    def _mark(self, path: str) -> tuple[int, ...] | None:
        fact = self.seen[path].fact
        return fact.mark if fact else None

    def _failed(self, why: str) -> None:
        if not self.breaker.since:
            reason = why or f"nothing came for {SILENCE:.0f} s"
            self.log.warning("Catalog: %s does not answer: %s; it is left alone for a while", self.root, reason)
        self.breaker.failed(time.time())

    def _answers(self) -> None:
        if self.breaker.since:
            self.log.info("Catalog: %s answers again", self.root)
        self.breaker.answered()

    def _is_absent(self) -> bool:
        now = time.time()
        if any(seen.was_present for seen in self.seen.values()):
            # autofs says the same of a repository that it cannot mount just now: cannot tell
            self._failed("it is not mounted")
            return self._silence(self.seen, "it is not mounted")
        if not any(seen.absent for seen in self.seen.values()):
            self.log.warning("Catalog: there is no %s on this machine; it is left alone for a while", self.root)
        self.breaker.absent(now)
        gone, news = Fact("missing", why=f"there is no {self.root} on the hub's machine"), False
        for seen in self.seen.values():
            news |= seen.take(gone, now, absent=True)
        return news

    def silence(self) -> str:
        """That it does not answer, in words; empty where it does."""
        return silence(self.root + "/", self.breaker.since) if self.breaker.since else ""

    async def follow(self, interval: float) -> None:
        """Look again and again, at new paths at once."""
        new: list[str] | None = None
        while True:
            try:
                await self.look(new)
            except OSError as error:  # this machine has no room for another process just now
                self.log.error("Catalog: %s could not be looked at: %s", self.root, error)
            new = None
            pause = max(interval, self.breaker.again - time.time())
            waits = [asyncio.ensure_future(one) for one in (self._wake.wait(), *(kid.gone() for kid in self._stuck))]
            try:
                done, _ = await asyncio.wait(waits, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in waits:
                    one.cancel()
            if waits[0] in done:
                self._wake.clear()  # only here: it may be set while others are looked at
                new = self.unseen()
            elif done:  # a child that was stuck is gone: the file system is there again
                self.breaker.again = 0.0
