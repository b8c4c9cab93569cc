"""The contract of a backend, and the plain data that crosses it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from logging import Logger, LoggerAdapter
from typing import TYPE_CHECKING, Any, ClassVar

from ..choice import Field, Who
from ..site.model import BackendConfig

if TYPE_CHECKING:
    from ..session import Session

Log = Logger | LoggerAdapter[Any]


class BackendError(Exception):
    """A backend could not do what it was asked to; the message is for the user, in his words."""


class Phase(str, Enum):
    """Where a job is. UNKNOWN means that it cannot be told: it is never taken for the end."""

    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"


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
    """Why it waits or how it ended, for the user."""
    exit_code: int | None = None


class Backend(ABC):
    """One configured backend. Made when the site is loaded, and again when its part of the site changes."""

    Config: ClassVar[type[BackendConfig]] = BackendConfig
    bind: ClassVar[str] = "0.0.0.0"
    """Address on which servers listen."""
    address: ClassVar[str | None] = None
    """Address at which the hub reaches them; None: the one that the node uses toward the hub."""

    def __init__(self, name: str, config: Any, log: Log):
        self.name, self.config, self.log = name, config, log
        self.on_end: Callable[[str, JobStatus], None] = lambda job, status: None
        """Called with a job's id when the backend sees it end: nobody need wait for a poll. The hub sets it."""

    @property
    def title(self) -> str:
        """What people see."""
        return str(self.config.title or self.name)

    def fields(self, who: Who) -> list[Field]:
        """The backend's own fields for a user. Called for each form and each choice: no I/O."""
        return []

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
    async def status(self, job: str) -> JobStatus:
        """What is known of a job. Called by every poll(): a look-up, no command."""

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

    async def forget(self, job: str, tag: Tag) -> None:
        """The session is over: let go of what is kept of its job, and see that nothing of it runs on.

        Called once for each job that ended, by itself or after `cancel`.
        """

    async def close(self) -> None:
        """Let go of what the backend holds in the hub; its jobs go on. Called when the site drops or changes it."""
