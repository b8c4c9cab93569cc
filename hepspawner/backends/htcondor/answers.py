"""What HTCondor's commands answer, read strictly: an answer that is not surely whole is no answer. Pure.

Formats and states as in HTCondor 25.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..base import BackendError, JobStatus, Phase, Tag
from ..batch import Listed
from ..tags import read_tag
from .submit import TAG
from .words import end_of, has_started, held, host_of, waiting

_IDLE, _RUNNING, _REMOVED, _COMPLETED, _HELD, _TRANSFERRING, _SUSPENDED = range(1, 8)
_ENDS = [
    "ClusterId",
    "JobStatus",
    "HoldReason",
    "HoldReasonCode",
    "RemoveReason",
    "ExitBySignal",
    "ExitCode",
    "ExitSignal",
    "LastRemoteHost",
    TAG,
]
_NOW = [
    "Owner",
    "RemoteHost",
    "EnteredCurrentStatus",
    "ServerTime",
    "JobCurrentStartDate",
    "JobCurrentStartExecutingDate",
    "NumJobStarts",
    "NumShadowStarts",
    "LastMatchTime",
    "LastRejMatchTime",
    "LastRejMatchReason",
    "LastVacateReason",
    "VacateReason",
]
PAST = ",".join(_ENDS)
"""What is asked of jobs that left the queue."""
PRESENT = ",".join([*_ENDS, *_NOW])
"""What is asked of jobs in the queue."""
SMALL = f"({' + '.join(f'size(unparse({name}))' for name in [*_ENDS, *_NOW])}) < 20000"
"""Jobs that answer that with no more than so many letters: the answer would be as long as any user likes."""


def read_ads(text: str) -> list[dict[str, Any]]:
    """The ads of an answer in JSON, which is empty where there are none. Raises BackendError."""
    try:
        ads = json.loads(text) if text.strip() else []
    except ValueError:
        raise BackendError(f"an answer that is not whole: …{text[-100:]!r}") from None
    if not isinstance(ads, list) or not all(isinstance(ad, dict) and _is_job(ad) for ad in ads):
        raise BackendError(f"an answer that cannot be understood: {text[:100]!r}")
    return ads


def _is_job(ad: Mapping[str, Any]) -> bool:
    return all(type(ad.get(name)) is int for name in ("ClusterId", "JobStatus"))


def jobs_of(
    ads: Iterable[Mapping[str, Any]],
    trusted: Callable[[str, Tag | None], Tag | None],
    now: float,
    blames: Mapping[str, str],
    idle: Mapping[str, int] | None = None,
) -> dict[str, Listed]:
    """The jobs of condor_q's ads. `now`: seconds since the epoch; `blames`: why nothing matches, by job; `idle`: how
    many jobs of each submitter wait, where that is known."""
    jobs = {}
    for ad in ads:
        job = str(ad["ClusterId"])
        status = waiting(ad, blames.get(job, ""), idle) if ad["JobStatus"] == _IDLE else _status(ad, now)
        tag = trusted(str(ad.get("Owner", "")), read_tag(str(ad.get(TAG, ""))))
        jobs[job] = Listed(job, str(ad.get("Owner", "")), tag, status, ad["JobStatus"] == _REMOVED)
    return jobs


def _status(ad: Mapping[str, Any], now: float) -> JobStatus:
    state = ad["JobStatus"]
    if state == _RUNNING and not has_started(ad):
        return JobStatus(Phase.QUEUED, f"node {host_of(ad)} prepares it", host=host_of(ad))
    if state in (_RUNNING, _REMOVED, _TRANSFERRING):
        return JobStatus(Phase.RUNNING, host=host_of(ad))
    if state == _SUSPENDED:
        return JobStatus(Phase.RUNNING, "it is suspended: its node is needed otherwise", host=host_of(ad))
    if state == _HELD:
        return held(ad, now)
    if state == _COMPLETED:
        return end_of(ad)
    # A state of a newer HTCondor: surely no reason to give a server up.
    return JobStatus(Phase.UNKNOWN, f"HTCondor says {state}")


def unmatched(ads: Iterable[Mapping[str, Any]]) -> list[str]:
    """The jobs that the negotiator found no machine for."""
    idle = [ad for ad in ads if ad["JobStatus"] == _IDLE and not ad.get("NumJobStarts")]
    return [str(ad["ClusterId"]) for ad in idle if "no match" in str(ad.get("LastRejMatchReason") or "")]


def idle_ones(ads: Iterable[Mapping[str, Any]]) -> list[str]:
    """The jobs that wait."""
    return [str(ad["ClusterId"]) for ad in ads if ad["JobStatus"] == _IDLE]


def held_ones(ads: Iterable[Mapping[str, Any]]) -> list[str]:
    """The jobs that are held."""
    return [str(ad["ClusterId"]) for ad in ads if ad["JobStatus"] == _HELD]


def read_ends(text: str, tags: Callable[[str], Tag | None]) -> dict[str, JobStatus]:
    """How jobs ended, from condor_history's answer. `tags`: of each job that is meant, for ids come again."""
    ends: dict[str, JobStatus] = {}
    for ad in read_ads(text):
        job = str(ad["ClusterId"])
        if read_tag(str(ad.get(TAG, ""))) == tags(job):
            ends.setdefault(job, end_of(ad))  # the latest comes first
    return ends


def read_submission(text: str) -> str:
    """The job id of ``condor_submit -terse``: ``22.0 - 22.0``. Raises BackendError."""
    match = re.search(r"^(\d+)\.0 - \1\.0\s*$", text, re.MULTILINE)
    if not match:
        raise BackendError(f"condor_submit gave no job id: {text[:100]!r}")
    return match[1]


_STEP = re.compile(r"^\[\d+\]\s+(\d+)\s+(.*)$", re.MULTILINE)
_REFERENCE = re.compile(r"\[\d+\]")
_DEFINED = re.compile(r"^ {4}(Request\w+|RequireGPUs|GPUsMin\w+) = (.*)$", re.MULTILINE)
_REQUEST = re.compile(r"\b(?:Request|RequireGPUs|GPUsMin)\w*")
_COUNTED = re.compile(r"^countMatches\((.*), ?AvailableGPUs\) (>= \S+)$")


def read_analysis(text: str) -> list[str]:
    """The conditions that ``condor_q -better-analyze`` blames: no slot meets them now, which of disk it does not say.
    With the job's values put in."""
    values = dict(_DEFINED.findall(text))
    put_in = lambda condition: _REQUEST.sub(lambda match: values.get(match[0], match[0]), condition)  # noqa: E731
    # Of disk newer pools have no condition. What is no number was not asked for.
    found = [f"Disk >= {asked}"] if (asked := values.get("RequestDisk", ""))[:1].isdecimal() else []
    for count, condition in _STEP.findall(text):
        if count != "0" or _REFERENCE.search(condition):
            continue
        shown = put_in(put_in(re.sub(r"\b(?:MY|TARGET)\.", "", condition))).strip()
        found.append(_COUNTED.sub(r"GPUs \2 with \1", shown)[:200])
    return list(dict.fromkeys(found))
