"""One attempt to run a server: what is known of it, from the choice to its end."""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal

from ..backends.base import JobStatus, Phase, Tag
from ..catalog.layouts import is_within, layout_of, short
from ..choice import Choice
from ..site.model import Site

_LOG_LINES = 40
_LINE_LENGTH = 500


class ClaimError(Exception):
    """A claim that is refused; the message is for the launcher and the hub's log."""


@dataclass(frozen=True)
class Stage:
    """A step on the way, as the waiting page shows it."""

    title: str
    state: Literal["done", "now", "next"]
    time: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Failure:
    """Why a server ended, for its user."""

    message: str
    advice: str = ""
    log: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it as plain text, for the API and the log."""
        parts = [f"{self.message} {self.advice}".strip()]
        if self.log:
            parts.append("Last lines of its log:\n" + "\n".join(self.log))
        return "\n".join(parts)


class Run:
    """A session that was or is to be started. Its waiters are woken by each change."""

    def __init__(self, tag: Tag, backend: str, summary: str, options: dict[str, Any]):
        self.tag, self.backend, self.summary, self.options = tag, backend, summary, options
        self.choice: Choice | None = None
        """What the options mean; not known of a run that was restored."""
        self.site: Site | None = None
        """The site as it was then: an image may leave its lists while the job waits."""
        self.places: list[str] = []
        """Where the node looks for the image, in this order; empty: at its places of today."""
        self.also: list[str] = []
        """Of an image that is wanted by its digest: where it would be today."""
        self.image: dict[str, str] = {}
        """What runs, once the node has found it: `name`; `place`, and `real`, the same with its links resolved; `tag`,
        the place at which a newer one would be; `digest`, empty where there is none. Empty without a file system."""
        self.job: str | None = None
        self.submitting = False
        """True until submit has returned in this process: the job may exist before its id is known."""
        self.url: str | None = None
        self.base_url = ""
        """Path of the server below its URL; set by the spawner."""
        self.claimant = ""
        self.waiting: JobStatus | None = None
        """What the backend said last of the job, as long as it is queued or its launcher was not heard of."""
        self.stopping = False
        """True once we end it ourselves."""
        self.ended: Failure | None = None
        self.exit_code = 0
        self.times: dict[str, float] = {}
        self.notes: list[str] = []
        self.pulling = ""
        """What Apptainer said last of the image that it pulls."""
        self.answer_claim: Callable[[str, int], Any] | None = None
        """Makes the answer to a claim; set by the spawner, awaited by the handler."""
        self.on_news: Callable[[], None] = lambda: None
        """Called when a hub that comes after this one has more to know; set by the spawner."""
        self.secrets: Callable[[], list[str]] = list
        """What must not be shown in a log; set by the spawner."""
        self.on_end: Callable[[], None] = lambda: None
        self._changed = asyncio.Event()

    def state(self) -> dict[str, Any]:
        """What a hub that restarts must know. No secret is among it."""
        return {
            "session": self.tag.session,
            "backend": self.backend,
            "summary": self.summary,
            "options": self.options,
            "places": self.places,
            "also": self.also,
            "image": self.image,
            "job": self.job,
            "url": self.url,
            "claimant": self.claimant,
            "times": self.times,
        }

    @classmethod
    def restore(cls, state: dict[str, Any], tag: Tag) -> "Run":
        """The run of a saved state."""
        run = cls(tag, state["backend"], state["summary"], state["options"])
        for name in ("places", "also", "image", "job", "url", "claimant", "times"):
            setattr(run, name, state.get(name, getattr(run, name)))  # an older hub did not save all of it
        return run

    def mark(self, step: str) -> None:
        """Note that a step was reached, the first time it is, and wake who waits."""
        if step not in self.times:
            self.times[step] = time.time()
            if step in ("starting", "ready"):
                self.on_news()
        self._wake()

    @property
    def image_name(self) -> str:
        """The image as it was asked for, without a digest: its name, its path or its reference."""
        name = str(self.options.get("custom_image") or self.options.get("image") or "")
        return name.rpartition("@")[0] if self.also else name

    def runs_from(self, place: str, real: str) -> None:
        """Note where the node found the image."""
        tag = self.also[0] if self.also else str(self.options.get("custom_image") or place)
        digest = layout_of(place, real).digest if is_within(place, real) else ""
        found = {"name": self.image_name, "tag": tag, "place": place, "real": real, "digest": digest}
        if found != self.image:
            self.image = found
            self.on_news()
            self._wake()

    def pulls(self, text: str) -> None:
        """Note what Apptainer says while it pulls the image."""
        self.pulling = text
        self._wake()

    def wait(self, status: JobStatus) -> None:
        """Note what the backend says of the job, and wake who shows it."""
        self.waiting = status
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def claim(self, claimant: object) -> None:
        """Accept the first claimant, and him alone again until the server is up. Raises ClaimError."""
        if not isinstance(claimant, str) or not claimant.isascii() or not 16 <= len(claimant) <= 200:
            raise ClaimError("malformed claim")
        digest = sha256(claimant.encode()).hexdigest()
        if self.ended:
            raise ClaimError("the session is over")
        if self.claimant and (self.url or not hmac.compare_digest(self.claimant, digest)):
            raise ClaimError("the ticket was used already")
        self.claimant, self.waiting = digest, None
        self.mark("claimed")

    def ready(self, url: str) -> None:
        """The server answers at a URL."""
        self.url = url
        self.mark("ready")

    def end(self, failure: Failure, exit_code: int = 0) -> None:
        """The job ended; only the first word of it counts."""
        if self.ended is None:
            self.ended, self.exit_code = failure, exit_code
            self.mark("ended")
            self.on_end()

    async def changes(self) -> AsyncIterator[None]:
        """Yields at once, and then after each change."""
        while True:
            changed = self._changed
            yield
            await changed.wait()

    async def settled(self, step: str = "ready") -> None:
        """Waits until the server is up, or has come to another step, or its job ended."""
        async for _ in self.changes():
            if self.url or self.ended or step in self.times:
                return

    async def ends(self) -> None:
        """Waits until the job ended."""
        async for _ in self.changes():
            if self.ended:
                return

    async def unless_ended(self, work: Awaitable[Any]) -> None:
        """Waits for some work, but no longer than until the job ended; what comes of it does not matter."""
        tasks = [asyncio.ensure_future(work), asyncio.ensure_future(self.ends())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _why_it_waits(self) -> str:
        status = self.waiting
        if status is None:
            return ""
        if status.phase is Phase.RUNNING:
            return f"node {status.host} prepares the job" if status.host else "its node prepares the job"
        parts = [status.reason] if status.reason else []
        if "submitted" in self.times:
            parts.append(f"waiting since {_clock(self.times['submitted'])}")
        if status.expected and status.expected > time.time():
            parts.append(f"expected to start about {_clock(status.expected)}")
        return "; ".join(filter(None, ["; ".join(parts), status.advice]))

    def stages(self) -> list[Stage]:
        """The way of the run."""
        steps = [
            ("submitted", "Checked and submitted", f"job {self.job}" if self.job else ""),
            ("claimed", "Waiting for the node", self._why_it_waits()),
            (
                "starting",
                "The node prepares the image",
                "; ".join([*image_words(self.image), *self.notes]),
            ),
            ("ready", "The image is pulled" if self.pulling else "JupyterLab starts", self.pulling),
        ]
        stages, reached = [], True
        for step, title, detail in steps:
            at = self.times.get(step)
            if at is not None:
                stages.append(Stage(title, "done", datetime.fromtimestamp(at).strftime("%H:%M:%S"), detail))
            else:
                stages.append(Stage(title, "now" if reached else "next", "", detail if reached else ""))
                reached = False
        return stages


def image_words(image: dict[str, str]) -> list[str]:
    """What a server runs from, in words: ``8e1e32f4ab12``, ``/cvmfs/…``; nothing where that is not known."""
    return [short(image["digest"]), image["place"]] if image and image["digest"] else [image["place"]] if image else []


def _clock(at: float) -> str:
    """A time of the day, with the day where it is another."""
    when = datetime.fromtimestamp(at)
    return when.strftime("%H:%M" if when.date() == datetime.now().date() else "%a %H:%M")


def clean_log(lines: object, secrets: list[str]) -> list[str]:
    """Last lines of a log as a launcher reports them: bounded, plain, and without the session's secrets."""
    if isinstance(lines, str):
        lines = lines.splitlines()
    if not isinstance(lines, list):
        return []
    clean = []
    for line in lines[-_LOG_LINES:]:
        text = str(line)
        for secret in filter(None, secrets):
            text = text.replace(secret, "<secret>")
        clean.append(_plain(text[:_LINE_LENGTH]))
    return clean


def _plain(text: str) -> str:
    return "".join(c for c in text if c.isprintable() or c == "\t")


def explain(report: dict[str, Any], log: list[str]) -> Failure:
    """The end that a launcher reports, in words, with advice."""
    reason, code = report.get("reason"), report.get("code")
    message = _plain(str(report.get("message") or "")[:1000])
    seconds = report.get("seconds")
    after = f" after {_duration(seconds)}" if isinstance(seconds, int | float) and 0 <= seconds < 1e9 else ""
    text = "\n".join(log)
    if reason == "stopped":
        return Failure(f"The server was stopped{after}.")
    if reason == "runtime":
        return Failure(
            f"The time that was asked for is over{after}.", "Ask for more time, or save your work earlier.", log
        )
    if reason == "memory":
        return Failure(f"The server needed more memory than it had{after}.", "Ask for more memory.", log)
    if reason == "missing":
        return Failure(
            f"The server could not be started: {message}.", "Choose another image, or tell the site's admins.", log
        )
    if reason == "failed":
        return Failure(f"The server could not be started: {message}.", _advice(text, message), log)
    # Above 128 stand the signals, of which there are 64; Apptainer's own errors are 255.
    how = "ended"
    if isinstance(code, int) and 0 <= code < 256:
        how = f"was killed by signal {code - 128}" if 128 < code <= 192 else f"ended with exit code {code}"
    return Failure(f"The server {how}{after}.", _advice(text, message), log)


# What Apptainer and the shell say of the usual causes, and what a user can do about it (facts of Apptainer 1.4).
_ADVICE = (
    (
        "jupyterhub-singleuser",
        (
            "executable file not found",
            "not found in $PATH",
            "command not found",
            "jupyterhub-singleuser could not be started",
        ),
        "The image has no jupyterhub-singleuser: choose another, or ask its author to add the package jupyterhub.",
    ),
    (
        "",
        ("manifest unknown", "MANIFEST_UNKNOWN", "NAME_UNKNOWN"),
        "The registry has no such image: look at its name and tag.",
    ),
    (
        "",
        ("unauthorized: ", "UNAUTHORIZED", "requested access to the resource is denied"),
        "The registry wants to know who asks: run `apptainer registry login` once, or make the image public.",
    ),
    ("", ("executable file not found",), "The image lacks the command: choose another image."),
    (
        "",
        ("image format not recognized", "squashfuse_ll exited"),
        "That is no image that Apptainer can run: choose another.",
    ),
    (
        "",
        ("/dev/fuse: Permission denied",),
        "The machine lets users mount no SIF images: take a sandbox, or tell the site's admins.",
    ),
    (
        "",
        ("mount source", "mount hook function failure"),
        "A directory that the site mounts is missing: tell the site's admins.",
    ),
    ("apptainer", ("No such file or directory",), "Apptainer is missing on that machine: tell the site's admins."),
    (
        "",
        ("No space left on device", "Disk quota exceeded"),
        "A disk is full, perhaps your home: make room and try again.",
    ),
    ("", ("MemoryError", "Cannot allocate memory"), "The memory did not suffice: ask for more."),
)


def _advice(text: str, message: str) -> str:
    both = f"{text}\n{message}"
    for needed, causes, advice in _ADVICE:
        if needed in both and any(cause in both for cause in causes):
            return advice
    return "The last lines of its log may tell why; choose another image, or ask the site's admins."


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
