"""The contract of a backend, and the plain data that crosses it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..choice import Field, Who, base_fields
from ..site.model import BackendConfig
from ..templates import Log, Templates

if TYPE_CHECKING:
    from ..session import Session


class BackendError(Exception):
    """A backend could not do what it was asked to; the message is for the user, in his words."""


class Phase(str, Enum):
    """Where a job is. UNKNOWN means that it cannot be told: it is never taken for the end. LOST means that the engine
    answers well and knows of no such job: it ended, unless its server answers."""

    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"
    LOST = "lost"


@dataclass(frozen=True)
class Tag:
    """What every job is marked with, so that a hub that died finds it again."""

    hub: str
    user: str
    server: str
    session: str

    def __str__(self) -> str:
        return f"{self.hub}/{self.user}/{self.server}/{self.session}"


@dataclass(frozen=True)
class JobStatus:
    """What a backend knows of a job."""

    phase: Phase
    reason: str = ""
    """Why it waits or how it ended, for the user: a part of a sentence."""
    exit_code: int | None = None
    advice: str = ""
    """What the user can do about it: a sentence."""
    hopeless: bool = False
    """Of a queued job: it will never start."""
    expected: float | None = None
    """When a queued job may start, in seconds since the epoch."""
    host: str = ""
    """The node on which it runs."""
    again: bool = False
    """Of a queued job: it ran before, and was sent back to the queue."""


@dataclass(frozen=True)
class Amount:
    """How much there is of something."""

    free: int
    total: int


@dataclass(frozen=True)
class Room:
    """What is free in a part of a backend: a partition, or all of it."""

    name: str
    title: str
    up: bool = True
    cores: Amount | None = None
    gpus: Mapping[str, Amount] = field(default_factory=dict)
    """By kind, as the site calls it."""
    waiting: int | None = None
    """Jobs of anybody that wait for it."""
    gpus_waiting: Mapping[str, int] = field(default_factory=dict)
    """Of those, the ones that want GPUs, by kind."""


@dataclass(frozen=True)
class Availability:
    """What is free on a backend, as it was when it was asked last."""

    at: float
    """Seconds since the epoch."""
    rooms: Sequence[Room]
    problem: str = ""
    """Why it could not be asked since."""


class Backend(ABC):
    """One configured backend. Made when the site is loaded, and again when its part of the site changes."""

    Config: ClassVar[type[BackendConfig]] = BackendConfig
    bind: ClassVar[str] = "0.0.0.0"
    """Address on which servers listen."""
    address: str | None = None
    """Address at which the hub reaches them, as docs/protocol.md has it; None: the one the node uses toward the hub."""

    queues: ClassVar[bool] = False
    """Whether jobs may wait for hours before they run."""
    inherit: ClassVar[tuple[str, ...]] = ()
    """Variables of the job that its server sees, too."""
    runs_images: Literal["", "places", "references"] = ""
    """Which images the engine itself runs as containers (`Session.container_image`), and the launcher in them: those of
    file systems, those of registries, or none."""
    needs_auth_state: bool = False
    """Whether `submit` wants the session's auth_state."""

    def __init__(self, name: str, config: Any, log: Log, templates: Templates | None = None):
        self.name, self.config, self.log = name, config, log
        self.templates = templates or Templates([], log)
        self.on_change: Callable[[str, JobStatus], None] = lambda session, status: None
        """Called with a session when the backend sees its job change: nobody need wait for a poll. The hub sets it."""
        self.owned: Callable[[Tag], bool] = lambda tag: True
        """Whether somebody's server hangs on the job of a tag. The hub sets it."""
        self.hub = ""
        """The hub's id, that its jobs' tags begin with. The hub sets it."""

    @property
    def title(self) -> str:
        """What people see."""
        return str(self.config.title or self.name)

    def open(self) -> None:
        """Begin to watch jobs. Called once, by the hub, after the callbacks are set."""

    def problems(self) -> list[str]:
        """What would keep it from working on this machine. Called by `hepspawner check`; may look at files."""
        return []

    def warning(self, runtime: int | None) -> int | None:
        """Seconds before a job's end at which the engine warns the launcher by SIGUSR1; None: that has the clock.

        Called for each claim and preview.
        """
        return None

    def fields(self, who: Who) -> list[Field]:
        """All that a user can choose on it. Called for each form and each choice: no I/O."""
        return base_fields(self.config)

    def availability(self, who: Who) -> Availability | None:
        """What is free for a user, as far as it is known. Called for each form: no I/O."""
        return None

    @abstractmethod
    async def submit(self, session: "Session", tag: Tag, job_input: dict[str, Any]) -> str:
        """Start a job that runs the launcher with `job_input` on its standard input; returns the job's id.

        Called once per session by the spawner's start(). Raises BackendError. When it is cancelled, or fails without
        saying whether there is a job, the spawner looks with `find`.
        """

    @abstractmethod
    async def cancel(self, job: str, tag: Tag, grace: float) -> None:
        """End a job and everything it started: politely, after `grace` seconds not. Returns when it is gone.

        Called by the spawner's stop(). A job that is gone already is no error. Raises BackendError where it cannot be
        told that the job ended.
        """

    @abstractmethod
    async def status(self, job: str, tag: Tag) -> JobStatus:
        """What is known of a job. Called by every poll(): a look-up, no command.

        An id alone does not say which job is meant: a Slurm that crashed gives it out again.
        """

    async def verdict(self, job: str) -> JobStatus | None:
        """How a job ended, as the engine sees it; waits a few seconds for that. None where it has nothing to say.

        Called when a launcher was ended, and nobody here had asked for it.
        """
        return None

    async def last_words(self, job: str, tag: Tag, started: bool = True) -> list[str]:
        """Last lines of what the job wrote, for a job whose launcher could not report them; empty: none to be had.

        `started`: its server was started, so that the server's log is this job's.
        """
        return []

    @abstractmethod
    async def find(self, tag: Tag) -> str | None:
        """The id of the job that carries a tag, None where there surely is none. Raises BackendError: cannot tell.

        Called after a restart of the hub, for sessions whose job's id was not saved.
        """

    async def look_as(self, user: str) -> dict[str, Any]:
        """As whom the hub looks at a user's own image (`user`, `group`, `extra_groups` of a process), empty: as itself.

        Called before the start of a custom image. Raises BackendError.
        """
        return {}

    @abstractmethod
    def preview(self, session: "Session") -> str:
        """The script or command that `submit` would use, without its ticket. Called by `hepspawner preview`."""

    async def delete_forever(self, user: str, server: str) -> None:
        """JupyterHub deletes a user (`server` is empty) or a named server: let go of what was kept for the next start,
        where the site says so. Raises BackendError."""

    async def forget(self, job: str, tag: Tag) -> None:
        """The session is over: let go of what is kept of its job, and see that nothing of it runs on.

        Called once for each job that ended, by itself or after `cancel`.
        """

    async def close(self) -> None:
        """Let go of what the backend holds in the hub; its jobs go on. Called when the site drops or changes it."""
