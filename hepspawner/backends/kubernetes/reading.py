"""What the API server says of pods and events, cut down to what is asked of it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ..base import Tag
from ..tags import read_tag
from .names import TAG
from .pod import CONTAINER

_NOT_STARTED = (
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
)


@dataclass(frozen=True)
class State:
    """A container's state. `reason` is Kubernetes' word, `message` its sentence."""

    kind: str
    """waiting, running, terminated."""
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    signal: int = 0
    before: "State | None" = None
    """How it ended the last time, where it is started again and again."""


@dataclass(frozen=True)
class Pod:
    """A pod, of which a list has hundreds: a tenth of what was answered."""

    name: str
    namespace: str
    uid: str
    tag: Tag | None
    created: float
    phase: str
    node: str = ""
    reason: str = ""
    message: str = ""
    unscheduled: str = ""
    """Why no node has room for it; empty where one was found, or nobody looked yet."""
    scheduled: float = 0.0
    """When a node was found; 0 where none was."""
    restart: str = "Never"
    """Its restartPolicy."""
    leaving: bool = False
    """It was deleted, and what runs of it is being ended."""
    ready: bool = False
    server: State | None = None
    others: tuple[tuple[str, State], ...] = ()
    """Containers that the site's patches add."""

    @property
    def job(self) -> str:
        """The id of its job."""
        return f"{self.namespace}/{self.name}"

    @property
    def waits(self) -> bool:
        """Whether the server's container does not run yet."""
        return not self.over and (self.server is None or self.server.kind == "waiting")

    @property
    def ended(self) -> bool:
        """Whether the server ended and will not be started again, whatever other containers do."""
        if self.server is None or self.server.kind != "terminated":
            return self.over
        return self.over or self.restart == "Never" or (self.restart == "OnFailure" and not self.server.exit_code)

    @property
    def over(self) -> bool:
        """Whether nothing of it runs any more."""
        states = [state for _, state in self.others] + ([self.server] if self.server else [])
        # The object itself goes when the kubelet has put all away: that of a pod that never ran may take it a minute.
        # What is said to wait may have been started, but not while it is said why it cannot be.
        failed = any(state.reason in _NOT_STARTED for state in states)
        still = ("PodInitializing",) if failed else ()
        ended = bool(self.server) and all(
            state.kind == "terminated" or state.reason in (*_NOT_STARTED, *still) for state in states
        )
        return self.phase in ("Succeeded", "Failed") or (self.leaving and (ended or not self.node))


@dataclass(frozen=True)
class Event:
    """Something that happened to a pod."""

    pod: str
    namespace: str
    reason: str
    message: str
    warning: bool
    count: int
    at: float


def seconds(text: str | None) -> float:
    """The seconds since the epoch of a time; 0 for none."""
    try:
        return datetime.fromisoformat((text or "").replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def read_pod(raw: Mapping[str, Any]) -> Pod:
    """A pod as the API server writes it."""
    metadata, spec, status = raw.get("metadata") or {}, raw.get("spec") or {}, raw.get("status") or {}
    states = {one.get("name"): _state_of(one) for one in _containers(status)}
    server = states.pop(CONTAINER, None)
    conditions = {one.get("type"): one for one in status.get("conditions") or []}
    scheduled = conditions.get("PodScheduled") or {}
    placed = scheduled.get("status") == "True"
    unscheduled = str(scheduled.get("message") or "") if scheduled.get("reason") == "Unschedulable" else ""
    return Pod(
        name=str(metadata.get("name")),
        namespace=str(metadata.get("namespace")),
        uid=str(metadata.get("uid")),
        tag=read_tag((metadata.get("annotations") or {}).get(TAG) or ""),
        created=seconds(metadata.get("creationTimestamp")),
        phase=str(status.get("phase") or ""),
        node=str(spec.get("nodeName") or ""),
        reason=str(status.get("reason") or ""),
        message=str(status.get("message") or ""),
        unscheduled=unscheduled if scheduled.get("status") == "False" else "",
        scheduled=seconds(scheduled.get("lastTransitionTime")) if placed else 0.0,
        restart=str(spec.get("restartPolicy") or "Never"),
        leaving=bool(metadata.get("deletionTimestamp")),
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        server=server,
        others=tuple((str(name), state) for name, state in states.items()),
    )


def _containers(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _state_of(container: Mapping[str, Any]) -> State:
    before = (container.get("lastState") or {}).get("terminated")
    return replace(_state(container.get("state") or {}), before=_state({"terminated": before}) if before else None)


def _state(raw: Mapping[str, Any]) -> State:
    for kind in ("terminated", "running", "waiting"):
        if (said := raw.get(kind)) is not None:
            texts = str(said.get("reason") or ""), str(said.get("message") or "")
            return State(kind, *texts, said.get("exitCode"), int(said.get("signal") or 0))
    return State("waiting")


def read_event(raw: Mapping[str, Any]) -> Event | None:
    """An event of a pod; None for one of anything else."""
    about = raw.get("involvedObject") or {}
    if about.get("kind") != "Pod":
        return None
    series = raw.get("series") or {}
    at = series.get("lastObservedTime") or raw.get("lastTimestamp") or raw.get("eventTime")
    return Event(
        pod=str(about.get("name")),
        namespace=str(about.get("namespace")),
        reason=str(raw.get("reason") or ""),
        message=str(raw.get("message") or ""),
        warning=raw.get("type") == "Warning",
        count=int(series.get("count") or raw.get("count") or 1),
        at=seconds(at),
    )


@dataclass
class Seen:
    """A pod and what happened to it, as far as it matters for its start."""

    pod: Pod
    events: dict[str, Event] = field(default_factory=dict)
    """The last one of each reason."""
