"""HTCondor's event log, where the hub may read it: starts and ends are known at once, and without asking.

As JSON, in which nobody's hold reason can look like another job's event, and with each job's tag and owner
(docs/htcondor.md says how a pool writes that).
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple

from ..base import BackendError, JobStatus, Log, Phase, Tag
from ..command import Commands
from ..tags import read_tag
from .submit import TAG
from .words import end_of, held, host_of

_INFORMATION = 28
_EXECUTING, _EVICTED, _TERMINATED, _ABORTED, _HELD, _RELEASED = 1, 4, 5, 9, 12, 13
_OTHER_FORMAT = re.compile(rb"\d{3} \(|<\w")
_LONGEST = 256 * 1024
_AGAIN = 30.0


class Event(NamedTuple):
    """What happened to a job."""

    job: str
    owner: str
    tag: Tag | None
    status: JobStatus | None
    """What the job is now; None: something happened of which the event does not tell enough."""
    held: bool


class Reader:
    """Puts events together from what was appended to the log, in whatever pieces that comes."""

    def __init__(self) -> None:
        self._rest, self._lines, self._size = b"", list[bytes](), 0
        self.odd = False
        """The log is written in another format."""

    def feed(self, new: bytes) -> list[dict[str, Any]]:
        """The events of hubs' jobs that are whole by now. What cannot be read is left out: the next look at the queue
        tells it."""
        *lines, self._rest = (self._rest + new).split(b"\n")
        self._rest = self._rest[:_LONGEST]
        events = []
        for line in lines:
            if line == b"{":
                self._lines, self._size = [], 0
            elif not self._lines:
                self.odd |= _OTHER_FORMAT.match(line) is not None
                continue
            self._lines.append(line)
            self._size += len(line)
            if line == b"}" or self._size > _LONGEST:
                events += self._whole()
        return events

    def _whole(self) -> list[dict[str, Any]]:
        text, self._lines = b"\n".join(self._lines), []
        try:
            # Most are of jobs that no hub submitted.
            return [json.loads(text)] if TAG.encode() in text else []
        except ValueError:
            return []


def read_event(event: Mapping[str, Any], now: float) -> Event | None:
    """What an event means for a job; None: nothing, or it says not whose. `now`: seconds since the epoch."""
    if event.get("EventTypeNumber") != _INFORMATION or type(event.get("Cluster")) is not int:
        return None
    kind = event.get("TriggerEventTypeNumber")
    if kind not in (_EXECUTING, _EVICTED, _TERMINATED, _ABORTED, _HELD, _RELEASED):
        return None
    tag = read_tag(str(event.get(TAG, "")))
    return Event(str(event["Cluster"]), str(event.get("Owner", "")), tag, _status(kind, event, now), kind == _HELD)


def _status(kind: int, event: Mapping[str, Any], now: float) -> JobStatus | None:
    if kind == _EXECUTING:
        return JobStatus(Phase.RUNNING, host=host_of({"RemoteHost": event.get("SlotName")}))
    if kind == _TERMINATED:
        by_signal = event.get("TerminatedNormally") is False
        end = {"ExitBySignal": by_signal, "ExitSignal": event.get("TerminatedBySignal")}
        return end_of({**event, **end, "ExitCode": event.get("ReturnValue"), "JobStatus": 4})
    if kind == _ABORTED:
        return end_of({"LastRemoteHost": event.get("LastRemoteHost"), "RemoveReason": event.get("Reason")})
    return held(event, now) if kind == _HELD else None


async def follow(path: str, commands: Commands, tell: Callable[[Mapping[str, Any]], None], log: Log) -> None:
    """Tell of each event from now on, until it is cancelled."""
    reader, problem = Reader(), ""
    while True:
        try:
            async with aclosing(commands.follow(path)) as pieces:
                async for new in pieces:
                    for event in reader.feed(new):
                        tell(event)
                    if reader.odd:
                        raise BackendError("it is no JSON, see docs/htcondor.md")
            raise BackendError("its end was lost")
        except BackendError as error:
            if str(error) != problem:
                log.warning("The event log %s cannot be followed: %s", path, error)
            problem, reader = str(error), Reader()
        await asyncio.sleep(_AGAIN)
